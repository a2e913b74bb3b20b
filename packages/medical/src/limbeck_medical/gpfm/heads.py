"""Heads on tokens, and the student that has one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.parametrizations import weight_norm

from limbeck_core.build import build
from limbeck_core.errors import ShapeError
from limbeck_medical.gpfm.encoder import TileEncoder


class ProjectionHead(nn.Module):
    """From tokens through a bottleneck of unit length to prototypes, or to an expert's features.

    ``layers`` linear layers with GELU between them, the last one to the bottleneck; L2 normalisation; a linear layer
    without bias whose rows have a length of their own (weight normalisation), 1 at the start.

    Args:
        width: Of the tokens.
        out: Prototypes, or width of the expert.
        layers: Linear layers before the bottleneck; 1 for experts, 3 for prototypes.
        hidden: Width between them.
        bottleneck: Width of the bottleneck.

    Raises:
        ValueError: if a number is below 1.

    Reference:
        Caron et al., Emerging Properties in Self-Supervised Vision Transformers, arXiv:2104.14294, appendix C.

    >>> ProjectionHead(8, 5, bottleneck=4)(torch.zeros(2, 8)).shape
    torch.Size([2, 5])
    """

    def __init__(self, width: int, out: int, *, layers: int = 1, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        if min(width, out, layers, hidden, bottleneck) < 1:
            raise ValueError(
                "width, out, layers, hidden and bottleneck must be 1 or more, got "
                f"{width}, {out}, {layers}, {hidden} and {bottleneck}"
            )
        self.out = out
        widths = [width, *[hidden] * (layers - 1), bottleneck]
        parts: list[nn.Module] = []
        for here, there in pairwise(widths):
            parts += [nn.Linear(here, there), nn.GELU()]
        self.mlp = nn.Sequential(*parts[:-1])
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.last: Any = weight_norm(nn.Linear(bottleneck, out, bias=False))
        nn.init.ones_(self.last.parametrizations.weight.original0)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return ``(..., out)`` of tokens ``(..., width)``."""
        found: Tensor = self.last(normalize(self.mlp(tokens), dim=-1, eps=1e-6))
        return found


class TileStudent(nn.Module):
    """An encoder with the head of DINO, which iBOT shares.

    ``student(images)`` gives class tokens ``(N, D)``, what is used after training. With a mask, in training, it gives
    all that the losses ask for.

    Args:
        encoder: A :class:`~limbeck_medical.gpfm.encoder.TileEncoder`, or a config of it.
        prototypes: Width of the head. Paper: 65536.
        layers: Of the head. Paper: 3.
        hidden: Of the head. Paper: 2048.
        bottleneck: Of the head. Paper: 256.
    """

    def __init__(
        self,
        encoder: TileEncoder | Mapping[str, Any],
        *,
        prototypes: int = 65536,
        layers: int = 3,
        hidden: int = 2048,
        bottleneck: int = 256,
    ) -> None:
        super().__init__()
        self.encoder: TileEncoder = build(encoder)
        self.head = ProjectionHead(self.encoder.width, prototypes, layers=layers, hidden=hidden, bottleneck=bottleneck)

    def forward(
        self, images: Tensor, mask: Tensor | None = None, local_views: Tensor | None = None, *, hide: bool = True
    ) -> Any:
        """Run images, or the views of a training step.

        Args:
            images: ``(N, 3, H, W)`` in [0, 1]; in training the global views, view by view.
            mask: Patches that iBOT asks about, boolean ``(N, h, w)``.
            local_views: Smaller crops of the same images, ``(M, 3, H', W')``, view by view.
            hide: Whether the encoder sees the masked patches replaced (student) or as they are (teacher).

        Returns:
            Without mask the class tokens ``(N, D)``. With it a mapping: ``cls`` ``(N, D)`` and ``patch``
            ``(N, D, h, w)``, the tokens of ``images``; ``cls_logits`` ``(N + M, K)``, scores of the prototypes for
            global and local views; ``patch_logits``, those of the masked patches, one row each.

        Raises:
            ShapeError: as the encoder.
        """
        if mask is None:
            return self.encoder(images)["cls"]
        if mask.dtype != torch.bool:
            raise ShapeError(f"the mask must be boolean, True where a patch is hidden, got {mask.dtype}")
        found = dict(self.encoder(images, mask if hide else None))
        tokens = found["cls"]
        if local_views is not None:
            tokens = torch.cat([tokens, self.encoder(local_views)["cls"]])
        masked = found["patch"].permute(0, 2, 3, 1)[mask]
        # one pass: the head is the widest layer
        logits = self.head(torch.cat([tokens, masked]))
        return {**found, "cls_logits": logits[: len(tokens)], "patch_logits": logits[len(tokens) :]}
