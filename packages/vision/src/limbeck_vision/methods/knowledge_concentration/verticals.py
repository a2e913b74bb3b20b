"""The partition of labels into verticals: labels of one vertical are neighbours, so that sizes say everything."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from limbeck_core.errors import ShapeError, TargetError


def check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes of verticals as a tuple.

    Raises:
        ShapeError: if there is none, or one holds no label.
    """
    checked = tuple(int(size) for size in sizes)
    if not checked or min(checked) < 1:
        raise ShapeError(f"sizes must give the number of labels, 1 or more, of one vertical or more, got {checked}")
    return checked


def starts(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the first label of each vertical."""
    return (0, *accumulate(sizes))[:-1]


def vertical_of(targets: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the vertical of each sample, shape ``(N,)``, from its labels.

    Args:
        targets: Class indices ``(N,)``, or multi-hot rows ``(N, sum(sizes))``.
        sizes: Labels of each vertical.

    Raises:
        TargetError: if a label is outside, a sample has no label, or one has labels of two verticals.
        ShapeError: if multi-hot rows have another width.
    """
    checked = check_sizes(sizes)
    ends = torch.tensor([start + size for start, size in zip(starts(checked), checked, strict=True)])
    if targets.ndim == 1:
        if targets.is_floating_point() or (
            targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < ends[-1]
        ):
            raise TargetError(f"targets must be class indices from 0 to {int(ends[-1]) - 1} of the union label set")
        return torch.bucketize(targets.long(), ends.to(targets.device), right=True)
    if targets.ndim != 2 or targets.shape[1] != int(ends[-1]):
        raise ShapeError(f"multi-hot targets must have shape (N, {int(ends[-1])}), got {tuple(targets.shape)}")
    present = torch.stack([part.bool().any(1) for part in torch.split(targets, list(checked), dim=1)], dim=1)
    wrong = present.sum(1) != 1
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise TargetError(
            f"sample {row} has labels of {int(present[row].sum())} verticals, and one teacher must be chosen: give the "
            "batch the field 'verticals', for example that of the finest label"
        )
    return present.int().argmax(1)
