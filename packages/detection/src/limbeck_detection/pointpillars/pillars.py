"""From points to pillars and from pillars to a map: the two steps of PointPillars that no weight takes part in.

Lang et al., PointPillars: Fast Encoders for Object Detection from Point Clouds, arXiv:1812.05784, section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from limbeck_core.errors import ConfigError, ShapeError

Range = tuple[float, float, float, float, float, float]


class Pillars(NamedTuple):
    """Points of a batch by pillar. One voxelisation serves any number of networks; none of them writes into it.

    Args:
        points: Points of each pillar in the order of the scene, zeros behind them, ``(M, max_points, D)``.
        num_points: How many of them are real, int64 ``(M,)``, 1 to ``max_points``.
        coords: Scene, z, y and x of each pillar, int64 ``(M, 4)``. Scenes follow one another; inside a scene pillars
            stand in the order of their first points.
        batch_size: Number of scenes, empty ones included.
    """

    points: Tensor
    num_points: Tensor
    coords: Tensor
    batch_size: int

    @property
    def scenes(self) -> Tensor:
        """Scene of each pillar, int64 ``(M,)``."""
        return self.coords[:, 0]


@dataclass(frozen=True)
class PillarGrid:
    """Where pillars stand, and how much of a scene is kept.

    Args:
        point_range: Smallest x, y, z and greatest x, y, z of a point that counts, in metres; the greatest do not count
            any more.
        pillar_size: Extent of a pillar along x, y and z in metres; along z it is the whole range.
        max_points: Points kept of each pillar, the first ones.
        max_pillars: Pillars kept of each scene, the first ones: in training, and otherwise.

    Raises:
        ConfigError: if a number is out of range, or the range is no whole number of pillars.
    """

    point_range: Range = (0.0, -39.68, -3.0, 69.12, 39.68, 1.0)
    pillar_size: tuple[float, float, float] = (0.16, 0.16, 4.0)
    max_points: int = 32
    max_pillars: tuple[int, int] = (16000, 40000)

    def __post_init__(self) -> None:
        """Refuse grids that do not fit their range."""
        low, high = self.point_range[:3], self.point_range[3:]
        if len(self.point_range) != 6 or len(self.pillar_size) != 3 or len(self.max_pillars) != 2:
            raise ConfigError(
                "a grid needs 6 numbers of point_range, 3 of pillar_size and 2 of max_pillars (training, otherwise), "
                f"got {self.point_range}, {self.pillar_size} and {self.max_pillars}"
            )
        if min(self.pillar_size) <= 0 or self.max_points < 1 or min(self.max_pillars) < 1:
            raise ConfigError(f"pillar_size, max_points and max_pillars must be above 0, got {self}")
        for axis, start, end, size in zip("xyz", low, high, self.pillar_size, strict=True):
            cells = (end - start) / size
            if cells < 0.5 or not math.isclose(cells, round(cells), abs_tol=1e-3):
                raise ConfigError(
                    f"along {axis} the range from {start} to {end} is no whole number of pillars of {size}: it is "
                    f"{cells:.3f}"
                )
        if self.cells[2] != 1:
            raise ConfigError(
                f"a pillar reaches from the bottom of the range to its top: pillar_size must be {high[2] - low[2]} "
                f"along z, got {self.pillar_size[2]}"
            )

    @property
    def cells(self) -> tuple[int, int, int]:
        """Number of pillars along x, y and z."""
        low, high = self.point_range[:3], self.point_range[3:]
        sides = [round((end - start) / size) for start, end, size in zip(low, high, self.pillar_size, strict=True)]
        return sides[0], sides[1], sides[2]

    @property
    def map_size(self) -> tuple[int, int]:
        """Height (along y) and width (along x) of the map of pillars."""
        return self.cells[1], self.cells[0]


@torch.no_grad()
def voxelize(points: Sequence[Tensor], grid: PillarGrid, *, training: bool = False) -> Pillars:
    """Sort the points of each scene into pillars.

    Points that are not finite or lie outside of the range are left out. Of each pillar the first ``max_points`` points
    are kept; of each scene the first ``max_pillars`` pillars, in the order of their first points.

    Args:
        points: One tensor ``(n_i, D)`` a scene with x, y, z in metres and any further features; ``n_i`` may be 0.
        grid: Where pillars stand, and how many of them and their points are kept.
        training: Which of the two ``max_pillars`` counts.

    Raises:
        ShapeError: if there is no scene, or they are no floating-point tensors of one width of 3 or more.
    """
    _check_points(points)
    most = grid.max_pillars[0 if training else 1]
    scenes = [_sort_scene(scene, index, grid, most) for index, scene in enumerate(points)]
    counts, coords = (torch.cat([scene[part] for scene in scenes]) for part in (2, 3))
    stacked = points[0].new_zeros(len(counts) * grid.max_points, points[0].shape[1])
    start = 0
    for kept, slots, count, _ in scenes:
        stacked[slots + start * grid.max_points] = kept
        start += len(count)
    return Pillars(stacked.view(len(counts), grid.max_points, stacked.shape[1]), counts, coords, len(points))


def _check_points(points: Sequence[Tensor]) -> None:
    if not len(points):
        raise ShapeError("a batch needs at least one scene, got none")
    for index, scene in enumerate(points):
        if scene.ndim != 2 or scene.shape[1] < 3 or not scene.is_floating_point():
            raise ShapeError(
                f"scene {index} must be a floating-point tensor (n, D) with x, y, z and D - 3 further features, got "
                f"{scene.dtype} of shape {tuple(scene.shape)}"
            )
        if scene.shape[1] != points[0].shape[1]:
            raise ShapeError(
                f"all scenes need one number of features, got {points[0].shape[1]} in scene 0 and {scene.shape[1]} in "
                f"scene {index}"
            )


def _sort_scene(points: Tensor, scene: int, grid: PillarGrid, most: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The points that are kept and the slot of each, and number of points and coordinates of the pillars."""
    low, high = (points.new_tensor(part) for part in (grid.point_range[:3], grid.point_range[3:]))
    cells = torch.floor((points[:, :3] - low) / points.new_tensor(grid.pillar_size))
    # a comparison with NaN is false; the bounds are compared as well, since the quotient may round to a neighbour
    inside = ((cells >= 0) & (cells < points.new_tensor(grid.cells)) & (points[:, :3] < high)).all(1)
    inside &= torch.isfinite(points).all(1)
    kept = inside.nonzero().flatten()
    points, cells = points.index_select(0, kept), cells.index_select(0, kept)
    width = grid.cells[0]
    # 32 bits sort faster; the stable sort leaves each pillar's points in the scene's order
    key, order = (cells[:, 1] * width + cells[:, 0]).int().sort(stable=True)
    starts = torch.ones_like(key, dtype=torch.bool)
    starts[1:] = key[1:] != key[:-1]
    begin = starts.nonzero().flatten()
    pillar = starts.cumsum(0) - 1
    rank = torch.arange(len(key), device=key.device) - begin[pillar]
    by_first_point = order[begin].argsort()
    number = torch.empty_like(by_first_point)
    number[by_first_point] = torch.arange(len(begin), device=key.device)
    place = number[pillar]
    taken = ((rank < grid.max_points) & (place < most)).nonzero().flatten()
    place = place[taken]
    slots = place * grid.max_points + rank[taken]
    count = min(len(begin), most)
    chosen = key[begin[by_first_point[:count]]].long()
    coords = torch.stack([torch.full_like(chosen, scene), torch.zeros_like(chosen), chosen // width, chosen % width], 1)
    return points.index_select(0, order[taken]), slots, torch.bincount(place, minlength=count), coords


def scatter(features: Tensor, coords: Tensor, *, batch_size: int, map_size: tuple[int, int]) -> Tensor:
    """Lay the features of pillars out as a map, zeros where there is no pillar.

    Args:
        features: Features of each pillar, ``(M, C)``.
        coords: Scene, z, y and x of each pillar, int64 ``(M, 4)``, no two alike.
        batch_size: Number of scenes, also of those without a pillar.
        map_size: Height and width of the map.

    Returns:
        Map ``(batch_size, C, height, width)``, channels last in memory.

    Raises:
        ShapeError: if there are other numbers of features than coordinates.
    """
    if features.ndim != 2 or coords.shape != (len(features), 4):
        raise ShapeError(
            f"features (M, C) need coords (M, 4), got {tuple(features.shape)} and {tuple(coords.shape)}: hand on the "
            "coords of the pillars that the features were computed from"
        )
    height, width = map_size
    canvas = features.new_zeros(batch_size * height * width, features.shape[1])
    index = (coords[:, 0] * height + coords[:, 2]) * width + coords[:, 3]
    return canvas.index_copy(0, index, features).view(batch_size, height, width, -1).permute(0, 3, 1, 2)
