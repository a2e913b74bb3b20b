r"""Boxes as distributions over edge shifts: the bins, the decoding, and the targets of D-FINE's refinement.

D-FINE does not regress edges. Each of the four edges of a reference box has a distribution over ``reg_max + 1``
candidate shifts; the expected shift moves the edge. Shifts are stored multiplied by ``reg_scale``, as the released
checkpoints have them, and divided by it when they move an edge, so a stored shift of ``reg_scale`` moves an edge by one
whole width or height of the reference box. A positive shift moves an edge outwards. Edges are always in the order left,
top, right, bottom.

Reference: Peng et al., D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement,
arXiv:2410.13842, section 4.1 (weighting function, eq. 1-2).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softmax

from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import at_least_float32
from limbeck_detection.boxes import box_xyxy_to_cxcywh

_TOP_BIN_GAP = 0.1  # keeps floor(index) and floor(index) + 1 inside the bins
_WIDTH_GUARD = 1e-16  # of the reference box, so that a box without extent has finite targets


class BinTarget(NamedTuple):
    """Where true shifts fall among the bins.

    Args:
        bins: Left bin of each shift as a floating-point number, shape ``(N,)``; its integer part and the bin after it
            carry the target. A shift at or beyond the last bin has ``reg_max - 0.1``.
        weight_right: Share of the bin after ``bins``, in ``[0, 1]``, shape ``(N,)``.
        weight_left: Share of bin ``bins``: ``1 - weight_right``.
    """

    bins: Tensor
    weight_right: Tensor
    weight_left: Tensor


def weighting_function(reg_max: int, up: Tensor, reg_scale: Tensor) -> Tensor:
    r"""Shift that each bin stands for: fine steps around zero, coarse ones far away.

    With :math:`b = |up \cdot reg\_scale|` and :math:`t = (b + 1)^{2 / (N - 2)}`, bin :math:`N / 2 \pm i` stands for
    :math:`\pm(t^i - 1)`, and the first and last bins for :math:`\mp 2b`. In the paper's notation this is
    :math:`reg\_scale \cdot W(n)` with :math:`a = up` and :math:`c = 1 / reg\_scale`.

    Args:
        reg_max: Number of bins less one, even and at least 4. Paper: ``N`` (32).
        up: Shape ``(1,)``; half of the largest shift, in widths of the reference box. Paper: ``a`` (0.5).
        reg_scale: Shape ``(1,)``; the curvature. Larger means finer steps near zero. Paper: ``1 / c``.

    Returns: Shifts in ascending order, shape ``(reg_max + 1,)``, in the dtype of ``up``.

    Raises:
        ValueError: if ``reg_max`` is odd or below 4.

    >>> weighting_function(32, torch.tensor([0.5]), torch.tensor([4.0]))[[0, 1, 16, 17, 31, 32]]
    tensor([-4.0000, -2.0000,  0.0000,  0.0760,  2.0000,  4.0000])
    """
    if reg_max < 4 or reg_max % 2:
        raise ValueError(f"reg_max must be even and at least 4, got {reg_max!r}")
    bound = (up.reshape(1) * reg_scale.reshape(1)).abs().to(up.dtype)
    powers = torch.arange(1, reg_max // 2, device=up.device, dtype=up.dtype)
    inner = (bound + 1) ** (2 / (reg_max - 2) * powers) - 1
    return torch.cat([-2 * bound, -inner.flip(0), torch.zeros_like(bound), inner, 2 * bound])


def distance2bbox(points: Tensor, distance: Tensor, reg_scale: Tensor) -> Tensor:
    r"""Move the edges of reference boxes.

    :math:`x_1 = c_x - (s / 2 + d_l) \, w / s`, and so on for the other edges, with :math:`s = |reg\_scale|`.

    Args:
        points: Reference boxes ``(cx, cy, w, h)``, shape ``(..., 4)``.
        distance: Shifts of the left, top, right and bottom edge, shape ``(..., 4)``.
        reg_scale: Shape ``(1,)``.

    Returns: Boxes ``(cx, cy, w, h)``, shape ``(..., 4)``. Width and height are negative where the edges crossed.

    Raises:
        ShapeError: if the last axis of either does not hold 4 numbers.
    """
    for tensor, name in ((points, "points"), (distance, "distance")):
        if tensor.shape[-1] != 4:
            raise ShapeError(f"{name} must hold 4 numbers on the last axis, got shape {tuple(tensor.shape)}")
    scale = reg_scale.abs()
    centre, unit = points[..., :2], points[..., 2:] / scale
    first = centre - (0.5 * scale + distance[..., :2]) * unit
    second = centre + (0.5 * scale + distance[..., 2:]) * unit
    return box_xyxy_to_cxcywh(torch.cat([first, second], dim=-1))


def translate_gt(shifts: Tensor, reg_max: int, reg_scale: Tensor, up: Tensor) -> BinTarget:
    """Split each true shift between the two bins around it, so that their weighted mean is the shift.

    A shift below the first bin belongs to bin 0 entirely, one at or beyond the last bin to the last.

    Args:
        shifts: Any shape; flattened.
        reg_max: As for :func:`weighting_function`.
        reg_scale: Shape ``(1,)``.
        up: Shape ``(1,)``.

    Returns: The bins and their shares, without gradient, each of shape ``(N,)``.

    Raises:
        ValueError: as for :func:`weighting_function`.
    """
    with torch.no_grad():
        shifts = shifts.reshape(-1)
        bins = weighting_function(reg_max, up, reg_scale).to(shifts.dtype)
        index = torch.searchsorted(bins, shifts.contiguous(), right=True) - 1
        low = index.clamp(0, reg_max - 1)
        to_left, to_right = (shifts - bins[low]).abs(), (bins[low + 1] - shifts).abs()
        weight_right = to_left / (to_left + to_right)
        weight_right = torch.where(index < 0, 0.0, torch.where(index >= reg_max, 1.0, weight_right)).to(shifts.dtype)
        position = torch.where(index >= reg_max, reg_max - _TOP_BIN_GAP, low.to(shifts.dtype)).to(shifts.dtype)
        return BinTarget(position, weight_right, 1 - weight_right)


def bbox2distance(points: Tensor, boxes: Tensor, reg_max: int, reg_scale: Tensor, up: Tensor) -> BinTarget:
    """Bins of the shifts that would move reference boxes onto true boxes.

    Args:
        points: Reference boxes ``(cx, cy, w, h)``, shape ``(N, 4)``.
        boxes: True boxes ``(x1, y1, x2, y2)``, shape ``(N, 4)``, in the same unit.
        reg_max: As for :func:`weighting_function`.
        reg_scale: Shape ``(1,)``.
        up: Shape ``(1,)``.

    Returns: The target of each edge without gradient, shape ``(4 * N,)``: left, top, right, bottom of the first box,
        then of the second.

    Raises:
        ShapeError: if the shapes differ or are not ``(N, 4)``.
        ValueError: as for :func:`weighting_function`.
    """
    if points.shape != boxes.shape or points.ndim != 2 or points.shape[-1] != 4:
        raise ShapeError(
            f"points and boxes must both have shape (N, 4), got {tuple(points.shape)} and {tuple(boxes.shape)}"
        )
    with torch.no_grad():
        scale = reg_scale.abs()
        centre, unit = points[:, :2], points[:, 2:] / scale + _WIDTH_GUARD
        shifts = torch.cat([(centre - boxes[:, :2]) / unit, (boxes[:, 2:] - centre) / unit], dim=-1) - 0.5 * scale
        return translate_gt(shifts, reg_max, reg_scale, up)


def integral(corners: Tensor, project: Tensor) -> Tensor:
    """Expected shift of each edge under its distribution.

    Args:
        corners: Logits of the four edges, one edge after another, shape ``(..., 4 * (reg_max + 1))``.
        project: What each bin stands for, shape ``(reg_max + 1,)``; see :func:`weighting_function`.

    Returns: Shape ``(..., 4)``, in float32 at least.

    Raises:
        ShapeError: if the last axis does not hold four times as many numbers as ``project``.
    """
    bins = project.shape[0]
    if corners.shape[-1] != 4 * bins:
        raise ShapeError(
            f"corners must hold 4 edges of {bins} bins on the last axis ({4 * bins}), got shape {tuple(corners.shape)}"
        )
    probabilities = softmax(at_least_float32(corners).reshape(*corners.shape[:-1], 4, bins), dim=-1)
    return (probabilities * project).sum(dim=-1)  # not a product of matrices, which autocast would compute in half
