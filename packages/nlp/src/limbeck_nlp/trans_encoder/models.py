"""The two forms of one encoder: two sentences apart, and two sentences in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.errors import ShapeError
from limbeck_core.functional import unit_vectors


class BiEncoder(nn.Module):
    """Score a pair by the cosine of its sentences' embeddings, the states of their first tokens.

    Args:
        encoder: A model of transformers for the task ``"encoder"``, or a config of one.

    Called with ``first`` and ``second``, mappings of the encoder's arguments, it returns ``logits`` (the cosine, shape
    ``(N,)``) and ``embeddings``, those of the first and of the second sentences, ``(N, D)`` each.
    """

    def __init__(self, encoder: nn.Module | Mapping[str, Any]) -> None:
        super().__init__()
        self.encoder: nn.Module = build(encoder)
        self.config = getattr(self.encoder, "config", None)

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the embedding of each sentence, shape ``(N, D)``."""
        embedding: Tensor = self.encoder(**inputs).last_hidden_state[:, 0]
        return embedding

    def forward(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Any]:
        """Score pairs."""
        embeddings = (self.embed(first), self.embed(second))
        one, other = map(unit_vectors, embeddings)
        return {"logits": (one * other).sum(-1), "embeddings": embeddings}


class CrossEncoder(nn.Module):
    """Score a pair by reading both sentences at once: one logit, whose sigmoid is the score.

    Args:
        classifier: A model of transformers for the task ``"sequence_classification"`` with one label, or a config.

    It returns ``logits``, shape ``(N,)``.

    Raises:
        ShapeError: when called, if the classifier has another number of labels.
    """

    def __init__(self, classifier: nn.Module | Mapping[str, Any]) -> None:
        super().__init__()
        self.classifier: nn.Module = build(classifier)
        self.config = getattr(self.classifier, "config", None)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Score pairs."""
        logits: Tensor = self.classifier(**inputs).logits
        if logits.shape[1:] != (1,):
            raise ShapeError(f"a cross-encoder gives one logit a pair, got {tuple(logits.shape)}: set num_labels=1")
        return {"logits": logits[:, 0]}


class MeanScore(nn.Module):
    """The mean of several teachers' scores (mutual distillation), the ``teacher_adapter`` of a match with several taps.

    Args:
        logits: Whether they are logits of cross-encoders: then the mean is over their sigmoids, given as a logit again.
    """

    def __init__(self, *, logits: bool = False) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, scores: Sequence[Tensor]) -> Tensor:
        """Return the mean, shape ``(N,)``."""
        stacked = torch.stack(list(scores))
        if not self.logits:
            return stacked.mean(0)
        return stacked.double().sigmoid().mean(0).logit(eps=1e-12).to(stacked.dtype)

    def extra_repr(self) -> str:
        """Show the option in ``repr``."""
        return f"logits={self.logits}"
