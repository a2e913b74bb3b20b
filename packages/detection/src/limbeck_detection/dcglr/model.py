"""Encoder and head: what DCGLR's student is, and what its teacher is a moving average of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from limbeck_core.build import build
from limbeck_core.functional.relations import unit_vectors


class PrototypeHead(nn.Module):
    """Three layers with GELU, then a vector of length 1 against prototypes of length 1.

    Args:
        dim: Width of the embedding.
        prototypes: Number K of prototypes.
        hidden: Width of the hidden layers.
        bottleneck: Width of the vector.

    Reference: Caron et al., arXiv:2104.14294, appendix C.
    """

    def __init__(self, dim: int, prototypes: int = 512, *, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.prototypes, std=0.02)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return cosines ``(rows, K)``."""
        vectors = unit_vectors(self.layers(embeddings))
        return linear(vectors, unit_vectors(self.prototypes).to(vectors.dtype))


class CloudModel(nn.Module):
    """An encoder with a head on it.

    Taps of interest: ``head``, the scores of all views, and ``embedding``, what the head gets.

    Args:
        encoder: One with ``dim``, or its config.
        prototypes: See :class:`PrototypeHead`.
        hidden: The same.
        bottleneck: The same.
    """

    def __init__(
        self,
        encoder: nn.Module | Mapping[str, Any],
        *,
        prototypes: int = 512,
        hidden: int = 2048,
        bottleneck: int = 256,
    ) -> None:
        super().__init__()
        self.encoder: Any = build(encoder)
        self.embedding = nn.Identity()  # one place to read, however many lengths views have
        self.head = PrototypeHead(self.encoder.dim, prototypes, hidden=hidden, bottleneck=bottleneck)

    def forward(self, views: Tensor | Sequence[Tensor]) -> Tensor:
        """Return embeddings, ``(rows, D)``.

        Args:
            views: Clouds ``(rows, n, 3)``, or several such tensors of different lengths, whose rows follow each other.

        Raises:
            ShapeError: if the clouds have another shape.
        """
        kinds = [views] if isinstance(views, Tensor) else list(views)
        embeddings: Tensor = self.embedding(torch.cat([self.encoder(clouds) for clouds in kinds]))
        self.head(embeddings)
        return embeddings
