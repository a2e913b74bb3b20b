"""Boxes with a heading: their corners, overlaps and non-maximum suppression, vectorised.

A box seen from above is ``(x, y, l, w, yaw)``; in space ``(x, y, z, l, w, h, yaw)`` with ``z`` at the bottom. Lengths
are in metres, yaw in radians, counter-clockwise from x; ``l`` lies along the heading.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from limbeck_core.errors import ShapeError

_TOLERANCE = 1e-9  # of a unit square's coordinates, in float64
_PAIRS = 200_000  # pairs whose polygons are held at once


def as_bev(boxes: Tensor) -> Tensor:
    """Boxes seen from above, ``(n, 5)``; those of five numbers stay as they are.

    Raises:
        ShapeError: if boxes have neither five nor seven numbers.
    """
    if boxes.ndim != 2 or boxes.shape[1] not in (5, 7):
        raise ShapeError(
            f"boxes must be (n, 5) (x, y, l, w, yaw) or (n, 7) (x, y, z, l, w, h, yaw), got {tuple(boxes.shape)}"
        )
    return boxes if boxes.shape[1] == 5 else boxes[:, [0, 1, 3, 4, 6]]


def bev_corners(boxes: Tensor) -> Tensor:
    """Corners of boxes seen from above, counter-clockwise, ``(n, 4, 2)``.

    Raises:
        ShapeError: as :func:`as_bev`.
    """
    flat = as_bev(boxes)
    unit = flat.new_tensor([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
    local = unit * flat[:, None, 2:4]
    cos, sin = flat[:, 4, None].cos(), flat[:, 4, None].sin()
    x, y = local[..., 0], local[..., 1]
    return torch.stack([x * cos - y * sin, x * sin + y * cos], -1) + flat[:, None, :2]


def paired_intersection(first: Tensor, second: Tensor) -> Tensor:
    """Area that two boxes share, seen from above, pair by pair.

    The corners of either box inside the other and the crossings of their edges are the corners of what they share;
    sorted by angle they give its area. Computed in float64.

    Args:
        first: ``(n, 5)`` or ``(n, 7)``.
        second: The same number.

    Returns:
        Square metres, float64 ``(n,)``; 0 where a box has no area.

    Raises:
        ShapeError: as :func:`as_bev`, or if the numbers of boxes differ.
    """
    a, b = as_bev(first).double(), as_bev(second).double()
    if len(a) != len(b):
        raise ShapeError(f"pairs need two equal numbers of boxes, got {len(a)} and {len(b)}")
    if not len(a):
        return a.new_zeros(0)
    total = torch.cat([_shared(a[i : i + _PAIRS], b[i : i + _PAIRS]) for i in range(0, len(a), _PAIRS)])
    return total * ((a[:, 2:4] > 0).all(1) & (b[:, 2:4] > 0).all(1))


def _shared(a: Tensor, b: Tensor) -> Tensor:
    # around the first box, in units of the larger one: tolerances then mean the same for all
    scale = torch.maximum(a[:, 2:4].abs().amax(1), b[:, 2:4].abs().amax(1)).clamp(min=1e-12)[:, None]
    a, b = (torch.cat([(x[:, :2] - a[:, :2]) / scale, x[:, 2:4] / scale, x[:, 4:]], 1) for x in (a, b))
    corners_a, corners_b = bev_corners(a), bev_corners(b)
    crossings, cross = _crossings(corners_a, corners_b)
    points = torch.cat([corners_a, corners_b, crossings], 1)
    valid = torch.cat([_inside(corners_a, b), _inside(corners_b, a), cross], 1)
    return _area(points, valid) * scale[:, 0] ** 2


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Which of ``(n, p, 2)`` points lie in their box, its edge included."""
    offset = points - boxes[:, None, :2]
    cos, sin = boxes[:, 4, None].cos(), boxes[:, 4, None].sin()
    along = offset[..., 0] * cos + offset[..., 1] * sin
    across = offset[..., 1] * cos - offset[..., 0] * sin
    half = boxes[:, None, 2:4] / 2 + _TOLERANCE
    return (along.abs() <= half[..., 0]) & (across.abs() <= half[..., 1])


def _crossings(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Where the four edges of ``a`` cross those of ``b``, ``(n, 16, 2)``, and whether they do."""
    start, other = a[:, :, None], b[:, None]
    edge = (a.roll(-1, 1) - a)[:, :, None]
    edge_other = (b.roll(-1, 1) - b)[:, None]
    offset = other - start
    area = _cross(edge, edge_other)
    parallel = area.abs() < 1e-14  # corners inside say all of parallel edges
    safe = torch.where(parallel, torch.ones_like(area), area)
    on_first, on_second = _cross(offset, edge_other) / safe, _cross(offset, edge) / safe
    crosses = ~parallel & (on_first >= 0) & (on_first <= 1) & (on_second >= 0) & (on_second <= 1)
    return (start + on_first[..., None] * edge).flatten(1, 2), crosses.flatten(1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _area(points: Tensor, valid: Tensor) -> Tensor:
    """Area of the convex polygon that the valid ones of ``(n, p, 2)`` points are the corners of."""
    count = valid.sum(1, keepdim=True)
    middle = (points * valid[..., None]).sum(1, keepdim=True) / count.clamp(min=1)[..., None]
    around = points - middle
    angle = torch.atan2(around[..., 1], around[..., 0]).masked_fill(~valid, torch.inf)
    order = angle.argsort(1)
    around = around.gather(1, order[..., None].expand(-1, -1, 2))
    # invalid points stand last; the first corner in their place closes the polygon and adds no area
    sorted_valid = valid.gather(1, order)[..., None]
    around = torch.where(sorted_valid, around, around[:, :1])
    return _cross(around, around.roll(-1, 1)).sum(1).clamp(min=0) / 2 * (count[:, 0] >= 3)


def bev_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union seen from above, of every pair.

    Args:
        first: ``(n, 5)`` or ``(n, 7)``.
        second: ``(m, 5)`` or ``(m, 7)``.

    Returns:
        Float64 ``(n, m)``; 0 where neither box has an area.

    Raises:
        ShapeError: as :func:`as_bev`.
    """
    a, b = as_bev(first).double(), as_bev(second).double()
    shared = _intersections(a, b)
    total = _product(a[:, 2:4])[:, None] + _product(b[:, 2:4]) - shared
    return shared / total.clamp(min=1e-12)


def box_iou_3d(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union in space, of every pair.

    Args:
        first: ``(n, 7)``.
        second: ``(m, 7)``.

    Returns:
        Float64 ``(n, m)``; 0 where neither box has a volume.

    Raises:
        ShapeError: if boxes have no seven numbers.
    """
    for boxes in (first, second):
        if boxes.ndim != 2 or boxes.shape[1] != 7:
            raise ShapeError(f"boxes in space must be (n, 7) (x, y, z, l, w, h, yaw), got {tuple(boxes.shape)}")
    a, b = first.double(), second.double()
    top = torch.minimum((a[:, 2] + a[:, 5])[:, None], b[:, 2] + b[:, 5])
    shared = _intersections(as_bev(a), as_bev(b)) * (top - torch.maximum(a[:, 2, None], b[:, 2])).clamp(min=0)
    total = _product(a[:, 3:6])[:, None] + _product(b[:, 3:6]) - shared
    return shared / total.clamp(min=1e-12)


def _product(sides: Tensor) -> Tensor:
    return sides.clamp(min=0).prod(1)


def _intersections(a: Tensor, b: Tensor) -> Tensor:
    """Shared area of every pair; only pairs whose circles meet are looked at."""
    found = a.new_zeros(len(a), len(b))
    reach = torch.hypot(a[:, 2], a[:, 3])[:, None] / 2 + torch.hypot(b[:, 2], b[:, 3]) / 2
    near = torch.cdist(a[:, :2], b[:, :2], compute_mode="donot_use_mm_for_euclid_dist") <= reach
    rows, columns = near.nonzero(as_tuple=True)
    found[rows, columns] = paired_intersection(a[rows], b[columns])
    return found


def rotated_nms(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Keep the best boxes; drop those that overlap a better one seen from above.

    Args:
        boxes: ``(n, 5)`` or ``(n, 7)``.
        scores: ``(n,)``.
        overlap: IoU above which a box is dropped.

    Returns:
        Indices of what is kept, best first, int64.

    Raises:
        ShapeError: as :func:`as_bev`, or if there are not as many scores as boxes.
    """
    if scores.shape != (len(boxes),):
        raise ShapeError(f"{len(boxes)} boxes need as many scores, got shape {tuple(scores.shape)}")
    order = scores.argsort(descending=True, stable=True)
    covers = (bev_iou(boxes[order], boxes[order]) > overlap).cpu().numpy()
    dropped = np.zeros(len(order), dtype=np.bool_)
    kept = []
    for index in range(len(order)):
        if not dropped[index]:
            kept.append(index)
            dropped |= covers[index]
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Which points lie in which boxes, faces included.

    Args:
        points: ``(n, 3)`` or more features.
        boxes: ``(m, 7)``.

    Returns:
        Bool ``(m, n)``.
    """
    offset = points[:, :3] - boxes[:, None, :3]
    cos, sin = boxes[:, 6, None].cos(), boxes[:, 6, None].sin()
    along = offset[..., 0] * cos + offset[..., 1] * sin
    across = offset[..., 1] * cos - offset[..., 0] * sin
    flat = (along.abs() <= boxes[:, 3, None] / 2) & (across.abs() <= boxes[:, 4, None] / 2)
    return flat & (offset[..., 2] >= 0) & (offset[..., 2] <= boxes[:, 5, None])
