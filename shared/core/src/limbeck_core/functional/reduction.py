"""One way to reduce: per-sample values to a scalar, with an optional mask, never NaN on an empty selection."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from limbeck_core.errors import ShapeError

Reduction = Literal["none", "mean", "sum"]


def check_reduction(reduction: str) -> None:
    """Raise ``ValueError`` unless ``reduction`` is ``"none"``, ``"mean"`` or ``"sum"``."""
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got {reduction!r}")


def check_mask(mask: Tensor, positions: torch.Size) -> None:
    """Raise :class:`ShapeError` unless ``mask`` has one entry per value of a loss, whose shape is ``positions``."""
    if mask.shape != positions:
        raise ShapeError(
            f"mask must have one entry per value of the loss, shape {tuple(positions)}, got {tuple(mask.shape)}"
        )


def blank_masked(values: Tensor, mask: Tensor | None, *, dim: int) -> Tensor:
    """Put zeros where the mask drops a position, so that NaN there reaches neither the loss nor a gradient.

    :func:`reduce_loss` keeps masked values out of the loss, but the gradient of a softmax at a dropped position is zero
    times its probabilities, which is NaN if those are.

    Args:
        values: What a loss is computed from, for example logits ``(N, C, ...)``.
        mask: As in :func:`reduce_loss`, without the axis ``dim``; ``None`` returns ``values`` as they are.
        dim: The axis of ``values`` that the loss sums over.

    Raises:
        ShapeError: if ``mask`` does not have the shape of ``values`` without ``dim``.
    """
    if mask is None:
        return values
    dim %= values.ndim
    check_mask(mask, values.shape[:dim] + values.shape[dim + 1 :])
    return values.masked_fill((mask == 0).unsqueeze(dim), 0.0)


def reduce_loss(per_sample: Tensor, reduction: Reduction = "mean", *, mask: Tensor | None = None) -> Tensor:
    """Reduce per-sample values.

    Args:
        per_sample: One value per sample (or per position), shape ``(N, ...)``.
        reduction: ``"none"`` returns the values (zero where masked out), ``"sum"`` their sum, ``"mean"`` their mean
            over the kept positions.
        mask: ``None`` keeps everything. Otherwise a boolean tensor (``True`` keeps) or non-negative weights, of the
            shape of ``per_sample``; ``"mean"`` divides by the sum of the weights.

    Returns:
        The reduced loss. An empty batch and a mask that keeps nothing give a zero that still has a graph.

    Raises:
        ValueError: if ``reduction`` is unknown.
        ShapeError: if ``mask`` has another shape than ``per_sample``.

    >>> reduce_loss(torch.tensor([1.0, 2.0, 6.0]), "mean", mask=torch.tensor([True, True, False]))
    tensor(1.5000)
    """
    check_reduction(reduction)
    if mask is None:
        if reduction == "none":
            return per_sample
        # the mean of nothing is NaN, its sum zero
        return per_sample.mean() if reduction == "mean" and per_sample.numel() else per_sample.sum()
    check_mask(mask, per_sample.shape)
    weight = mask.to(per_sample.dtype)
    # where, not a product: a masked position may hold NaN or infinity, and 0 * inf is NaN
    kept = torch.where(mask != 0, per_sample * weight, torch.zeros_like(per_sample))
    if reduction == "none":
        return kept
    if reduction == "sum":
        return kept.sum()
    total_weight = weight.sum()
    return kept.sum() / torch.where(total_weight > 0, total_weight, torch.ones_like(total_weight))
