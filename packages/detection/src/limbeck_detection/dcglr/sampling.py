"""Farthest points and nearest points of clouds: what encoders group by and views are cut by."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck_core.errors import ShapeError
from limbeck_detection.pointdistiller.neighbors import squared_distances


def check_clouds(points: Tensor, name: str = "points") -> None:
    """Raise :class:`ShapeError` unless ``points`` are clouds ``(B, n, 3)`` with a point at least."""
    if points.ndim != 3 or points.shape[2] != 3 or not points.shape[1] or not points.is_floating_point():
        raise ShapeError(
            f"{name} must be clouds (B, n, 3) of one point or more each, got {points.dtype} of shape "
            f"{tuple(points.shape)}"
        )


@torch.no_grad()
def farthest_points(points: Tensor, count: int) -> Tensor:
    """Points that lie far from each other.

    The first is the one farthest from the mean, whatever the order of the points; each next one is the farthest from
    all before it. Duplicates are taken only where there is nothing else.

    Args:
        points: Clouds, ``(B, n, 3)``.
        count: Points wanted, 1 or more; all are taken, and some again, where there are fewer.

    Returns: Row numbers, ``(B, count)``.

    Raises:
        ShapeError: if the clouds have another shape.

    >>> farthest_points(torch.tensor([[[0.0, 0, 0], [1.0, 0, 0], [9.0, 0, 0], [4.0, 0, 0]]]), 3)
    tensor([[2, 0, 3]])
    """
    check_clouds(points)
    clouds = torch.arange(len(points), device=points.device)
    chosen = torch.empty(len(points), count, dtype=torch.int64, device=points.device)
    current = (points - points.mean(1, keepdim=True)).square().sum(2).argmax(1)
    nearest = torch.full(points.shape[:2], torch.inf, dtype=points.dtype, device=points.device)
    for number in range(count):
        chosen[:, number] = current
        distance = (points - points[clouds, current].unsqueeze(1)).square().sum(2)
        nearest = torch.minimum(nearest, distance)
        current = nearest.argmax(1)
    return chosen


@torch.no_grad()
def nearest_points(places: Tensor, points: Tensor, count: int) -> Tensor:
    """Row numbers of the nearest points of each place, nearest first.

    Args:
        places: ``(B, m, 3)`` or ``(m, 3)``.
        points: ``(B, n, 3)`` or ``(n, 3)``.
        count: Points wanted; fewer where there are fewer.

    Returns: ``(B, m, k)`` or ``(m, k)``.
    """
    distances = squared_distances(places, points)
    return distances.topk(min(count, points.shape[-2]), dim=-1, largest=False).indices
