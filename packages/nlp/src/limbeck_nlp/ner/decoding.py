"""From scores of labels to tags that make sense."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck_core.errors import ShapeError


def allowed_transitions(labels: Sequence[str]) -> Tensor:
    """Return which label may follow which, shape ``(C + 1, C)``; the last row is the beginning of a sentence.

    ``I-X`` may follow ``B-X`` and ``I-X`` only.

    Args:
        labels: The labels, in BIO.
    """
    before = [*labels, "O"]
    return torch.tensor([[not b.startswith("I-") or (a != "O" and a[2:] == b[2:]) for b in labels] for a in before])


def viterbi_tags(logits: Tensor, labels: Sequence[str]) -> list[str]:
    """Return the likeliest tags of a sentence among those that are BIO.

    Args:
        logits: Scores of each word, shape ``(T, C)``.
        labels: The labels in the order of the classes; one of them must not begin with ``I-``.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    if logits.ndim != 2 or logits.shape[1] != len(labels):
        raise ShapeError(f"logits must have shape (T, {len(labels)}), one column a label, got {tuple(logits.shape)}")
    if not len(logits):
        return []
    scores = logits.detach().cpu().double().log_softmax(-1)
    banned = torch.zeros(len(labels) + 1, len(labels), dtype=scores.dtype)
    banned.masked_fill_(~allowed_transitions(labels), -torch.inf)
    best = scores[0] + banned[-1]
    steps = []
    for row in scores[1:]:
        best, came_from = (best.unsqueeze(1) + banned[:-1]).max(0)
        best = best + row
        steps.append(came_from)
    path = [int(best.argmax())]
    for came_from in reversed(steps):
        path.append(int(came_from[path[-1]]))
    return [labels[index] for index in reversed(path)]
