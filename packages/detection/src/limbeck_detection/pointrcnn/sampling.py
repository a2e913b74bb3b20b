"""Choosing and grouping points: farthest points, balls around them, and values carried back to all points.

Qi et al., PointNet++: Deep Hierarchical Feature Learning on Point Sets in a Metric Space, arXiv:1706.02413, sections
3.2 and 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from limbeck_core.errors import ConfigError, ShapeError

_CHUNK = 1 << 24  # distances held at once


class SampledPoints(NamedTuple):
    """The same number of points of each scene, which several networks share.

    Args:
        points: ``(B, N, D)``: x, y, z in metres and further features; zeros where a scene has none.
        empty: Which scenes have no point at all, bool ``(B,)``.
    """

    points: Tensor
    empty: Tensor


@dataclass(frozen=True)
class PointSampling:
    """How points of a scene are brought to one number.

    Args:
        num_points: Points of each scene. Of more a part is drawn without replacement, fewer are repeated.
        point_range: Smallest x, y, z and greatest x, y, z of a point that counts; the greatest do not count any more.

    Raises:
        ConfigError: if a number is out of range.
    """

    num_points: int = 16384
    point_range: tuple[float, float, float, float, float, float] = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse what is no range."""
        sides = zip(self.point_range[:3], self.point_range[3:], strict=True)
        if self.num_points < 1 or any(low >= high for low, high in sides):
            raise ConfigError(f"sampling needs one point or more and a range with an extent, got {self}")


@torch.no_grad()
def sample_points(scenes: Sequence[Tensor], sampling: PointSampling, *, training: bool = False) -> SampledPoints:
    """Bring scenes to one number of points; what is not finite or out of range is left out.

    Args:
        scenes: One tensor ``(n_i, D)`` a scene; ``n_i`` may be 0.
        sampling: How many, and where.
        training: Draw by torch's generator; otherwise evenly along the order of the scene, so that results repeat.

    Raises:
        ShapeError: if there is no scene, or they are no tensors ``(n, D)`` of one width of 3 or more.
    """
    if not len(scenes) or any(s.ndim != 2 or s.shape[1] != scenes[0].shape[1] or s.shape[1] < 3 for s in scenes):
        raise ShapeError(
            "a batch needs one scene or more, tensors (n, D) of one width of 3 or more, got "
            f"{[tuple(s.shape) for s in scenes]}"
        )
    count = sampling.num_points
    chosen, empty = [], []
    for scene in scenes:
        low, high = (scene.new_tensor(part) for part in (sampling.point_range[:3], sampling.point_range[3:]))
        inside = ((scene[:, :3] >= low) & (scene[:, :3] < high)).all(1) & torch.isfinite(scene).all(1)
        kept = scene[inside]
        empty.append(not len(kept))
        if not len(kept):
            chosen.append(scene.new_zeros(count, scene.shape[1]))
            continue
        if not training:
            index = torch.arange(count, device=scene.device) * len(kept) // count
            index = index if len(kept) >= count else torch.arange(count, device=scene.device) % len(kept)
        elif len(kept) >= count:
            index = torch.randperm(len(kept), device=scene.device)[:count]
        else:
            more = torch.randint(len(kept), (count - len(kept),), device=scene.device)
            index = torch.cat([torch.arange(len(kept), device=scene.device), more])
        chosen.append(kept[index])
    return SampledPoints(torch.stack(chosen), torch.tensor(empty, device=scenes[0].device))


@torch.no_grad()
def farthest_points(positions: Tensor, count: int) -> Tensor:
    """Choose points one after the other, each the farthest from all before it, beginning with the first.

    Args:
        positions: ``(B, N, 3)``.
        count: Points to choose, ``N`` at most.

    Returns:
        Indices, int64 ``(B, count)``.

    Raises:
        ShapeError: if there are fewer points.
    """
    batch, total, _ = positions.shape
    if not 1 <= count <= total:
        raise ShapeError(f"of {total} points {count} cannot be chosen: give more points, or choose fewer")
    chosen = torch.zeros(batch, count, dtype=torch.int64, device=positions.device)
    distance = torch.full((batch, total), torch.inf, dtype=positions.dtype, device=positions.device)
    rows = torch.arange(batch, device=positions.device)
    for step in range(1, count):
        last = positions[rows, chosen[:, step - 1]][:, None]
        distance = torch.minimum(distance, (positions - last).square().sum(-1))
        chosen[:, step] = distance.argmax(1)
    return chosen


@torch.no_grad()
def ball_query(positions: Tensor, centers: Tensor, *, radius: float, count: int) -> Tensor:
    """The first points, in their order, within a radius of each centre; the first of them fills up.

    Args:
        positions: ``(B, N, 3)``.
        centers: ``(B, M, 3)``.
        radius: In metres.
        count: Points of each ball.

    Returns:
        Indices, int64 ``(B, M, count)``; the nearest point alone for a centre with none inside.
    """
    total, width = positions.shape[1], min(count, positions.shape[1])
    order = torch.arange(total, device=positions.device, dtype=torch.int32)
    found = []
    for part in centers.split(max(1, _CHUNK // (total * len(positions))), 1):  # type: ignore[no-untyped-call]
        distance = torch.cdist(part, positions, compute_mode="donot_use_mm_for_euclid_dist")
        ranked = torch.where(distance <= radius, order, total)
        first = ranked.topk(width, dim=2, largest=False, sorted=True).values.long()
        nearest = distance.argmin(2, keepdim=True)
        head = torch.where(first[..., :1] < total, first[..., :1], nearest)
        found.append(torch.where(first < total, first, head))
    balls = torch.cat(found, 1)
    return torch.cat([balls, balls[..., :1].expand(-1, -1, count - width)], 2)


def take_points(values: Tensor, index: Tensor) -> Tensor:
    """Values ``(B, N, C)`` at indices ``(B, ...)``: ``(B, ..., C)``."""
    flat = index.flatten(1)[..., None].expand(-1, -1, values.shape[2])
    return values.gather(1, flat).view(*index.shape, values.shape[2])


def interpolate_points(values: Tensor, known: Tensor, wanted: Tensor) -> Tensor:
    """Carry values from some points to others: the three nearest, weighed by the inverse of their distances.

    Args:
        values: ``(B, M, C)``.
        known: Where they stand, ``(B, M, 3)``.
        wanted: Where they are wanted, ``(B, N, 3)``.

    Returns:
        ``(B, N, C)``.
    """
    with torch.no_grad():
        parts = []
        step = max(1, _CHUNK // (known.shape[1] * len(known)))
        for part in wanted.split(step, 1):  # type: ignore[no-untyped-call]
            distance = torch.cdist(part, known, compute_mode="donot_use_mm_for_euclid_dist")
            parts.append(distance.topk(min(3, known.shape[1]), dim=2, largest=False))
        near = torch.cat([part.values for part in parts], 1)
        index = torch.cat([part.indices for part in parts], 1)
        weight = 1 / (near.square() + 1e-8)
        weight = weight / weight.sum(2, keepdim=True)
    return (take_points(values, index) * weight[..., None].to(values.dtype)).sum(2)
