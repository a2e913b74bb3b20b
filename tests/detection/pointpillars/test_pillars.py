"""Voxelisation against a loop over points, and the map of pillars."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck_core.errors import ConfigError, ShapeError
from limbeck_detection.pointpillars import PillarGrid, Pillars, scatter, voxelize

GRID = PillarGrid((0.0, -2.0, -1.0, 4.0, 2.0, 1.0), (0.5, 1.0, 2.0), max_points=3, max_pillars=(6, 20))


def one_by_one(points: Tensor, grid: PillarGrid, most: int) -> tuple[list[list[list[float]]], list[tuple[int, int]]]:
    """Each point in turn, as the original does it."""
    pillars: dict[tuple[int, int], list[list[float]]] = {}
    low, size = np.array(grid.point_range[:3], np.float32), np.array(grid.pillar_size, np.float32)
    for point in points.numpy():
        if not np.isfinite(point).all():
            continue
        cell = np.floor((point[:3] - low) / size)
        if (cell < 0).any() or (cell >= grid.cells).any():
            continue
        key = (int(cell[1]), int(cell[0]))
        if key not in pillars and len(pillars) == most:
            continue
        if len(pillars.setdefault(key, [])) < grid.max_points:
            pillars[key].append(point.tolist())
    return list(pillars.values()), list(pillars)


def random_points(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([5.0, 5.0, 2.4, 1.0])
    return torch.rand(count, 4, generator=generator) * spread - torch.tensor([0.5, 2.5, 1.2, 0.0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [1, 10, 40, 300])
def test_agrees_with_a_loop_over_points(count: int, training: bool) -> None:
    scenes = [random_points(count, 0), random_points(2 * count, 1)]
    pillars = voxelize(scenes, GRID, training=training)
    rows: list[list[list[float]]] = []
    coords: list[list[int]] = []
    for index, scene in enumerate(scenes):
        kept, keys = one_by_one(scene, GRID, 6 if training else 20)
        rows += kept
        coords += [[index, 0, y, x] for y, x in keys]
    assert pillars.coords.tolist() == coords
    assert pillars.scenes.tolist() == [row[0] for row in coords]
    assert pillars.num_points.tolist() == [len(row) for row in rows]
    for slots, row in zip(pillars.points, rows, strict=True):
        assert slots[: len(row)].tolist() == row
        assert not slots[len(row) :].any()
    assert pillars.batch_size == 2


def test_bounds_belong_to_the_lower_side() -> None:
    edge = torch.tensor([[0.0, -2.0, -1.0, 7], [4.0, 0, 0, 7], [0, 2.0, 0, 7], [0, 0, 1.0, 7], [-1e-6, 0, 0, 7]])
    assert voxelize([edge], GRID).points[:, 0].tolist() == [[0.0, -2.0, -1.0, 7.0]]
    # 69.12 / 0.16 is less than 432 in float32: the bound itself must be compared
    wide = PillarGrid()
    point = torch.tensor([[np.nextafter(np.float32(69.12), np.float32(0)), 0, 0, 0], [69.12, 0, 0, 0]])
    assert len(voxelize([point], wide).points) == 1
    assert voxelize([point], wide).coords[0, 3] == 431


def test_what_is_no_number_is_left_out() -> None:
    points = torch.tensor([[math.nan, 0, 0, 0], [1, math.inf, 0, 0], [1, 0, 0, math.nan], [1, 0, 0, 0.5]])
    assert voxelize([points], GRID).points[:, 0].tolist() == [[1.0, 0.0, 0.0, 0.5]]


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_empty_scenes_are_counted(empty: int) -> None:
    scenes = [random_points(20, 0) for _ in range(3)]
    scenes[empty] = torch.zeros(0, 4)
    pillars = voxelize(scenes, GRID)
    assert pillars.batch_size == 3
    assert sorted(set(pillars.scenes.tolist())) == [i for i in range(3) if i != empty]
    canvas = scatter(pillars.points[:, 0], pillars.coords, batch_size=3, map_size=GRID.map_size)
    assert canvas.shape == (3, 4, 4, 8)
    assert not canvas[empty].any()


def test_nothing_at_all_gives_no_pillars() -> None:
    pillars = voxelize([torch.zeros(0, 4), torch.full((3, 4), 100.0)], GRID)
    assert isinstance(pillars, Pillars)
    assert pillars.points.shape == (0, 3, 4)
    assert pillars.coords.shape == (0, 4)


def test_every_pillar_lands_on_its_cell_and_gradients_come_back() -> None:
    pillars = voxelize([random_points(50, 0), random_points(50, 1)], GRID)
    features = torch.randn(len(pillars.coords), 5, requires_grad=True)
    canvas = scatter(features, pillars.coords, batch_size=2, map_size=GRID.map_size)
    for row, (scene, _, y, x) in zip(features, pillars.coords.tolist(), strict=True):
        assert torch.equal(canvas[scene, :, y, x], row)
    assert int((canvas != 0).any(1).sum()) == len(features)
    canvas.sum().backward()
    assert torch.equal(features.grad, torch.ones_like(features))


def test_grids_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"along x the range from 0\.0 to 4\.1 is no whole number"):
        PillarGrid((0.0, -2.0, -1.0, 4.1, 2.0, 1.0), (0.5, 1.0, 2.0))
    with pytest.raises(ConfigError, match=r"pillar_size must be 2\.0 along z, got 1\.0"):
        PillarGrid((0.0, -2.0, -1.0, 4.0, 2.0, 1.0), (0.5, 1.0, 1.0))
    with pytest.raises(ConfigError, match="must be above 0"):
        PillarGrid(max_points=0)
    with pytest.raises(ConfigError, match="6 numbers of point_range"):
        PillarGrid((0.0, 1.0, 2.0))  # type: ignore[arg-type]
    assert PillarGrid().cells == (432, 496, 1)


def test_points_of_another_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match="at least one scene"):
        voxelize([], GRID)
    with pytest.raises(ShapeError, match=r"scene 1 must be a floating-point tensor \(n, D\).*\(5, 2\)"):
        voxelize([torch.zeros(5, 4), torch.zeros(5, 2)], GRID)
    with pytest.raises(ShapeError, match="got 4 in scene 0 and 5 in scene 1"):
        voxelize([torch.zeros(5, 4), torch.zeros(5, 5)], GRID)
    with pytest.raises(ShapeError, match=r"\(3, 5\) and \(2, 4\)"):
        scatter(torch.zeros(3, 5), torch.zeros(2, 4, dtype=torch.int64), batch_size=1, map_size=(2, 2))
