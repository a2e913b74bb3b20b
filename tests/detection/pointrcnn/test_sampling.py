"""Choosing and grouping points, against loops."""

from __future__ import annotations

import math

import pytest
import torch

from limbeck_core.errors import ConfigError, ShapeError
from limbeck_detection.pointrcnn import (
    PointSampling,
    ball_query,
    farthest_points,
    interpolate_points,
    sample_points,
)


def test_farthest_points_agree_with_a_loop() -> None:
    positions = torch.rand(2, 40, 3)
    found = farthest_points(positions, 12)
    for scene in range(2):
        chosen = [0]
        while len(chosen) < 12:
            distances = [
                min(math.dist(p, positions[scene, c].tolist()) for c in chosen) for p in positions[scene].tolist()
            ]
            chosen.append(max(range(40), key=lambda i: distances[i]))
        assert found[scene].tolist() == chosen
    with pytest.raises(ShapeError, match="of 40 points 41 cannot be chosen"):
        farthest_points(positions, 41)


@pytest.mark.parametrize("count", [1, 4, 50])
def test_balls_agree_with_a_loop(count: int) -> None:
    positions, centers = torch.rand(2, 40, 3), torch.rand(2, 7, 3)
    centers[0, 0] = 9.0  # nothing is near it
    found = ball_query(positions, centers, radius=0.4, count=count)
    assert found.shape == (2, 7, count)
    for scene in range(2):
        for center in range(7):
            distances = [math.dist(p, centers[scene, center].tolist()) for p in positions[scene].tolist()]
            inside = [i for i, distance in enumerate(distances) if distance <= 0.4][:count]
            inside = inside or [min(range(40), key=lambda i: distances[i])]
            assert found[scene, center].tolist() == inside + [inside[0]] * (count - len(inside))


def test_interpolation_agrees_with_a_loop_and_returns_what_it_knows() -> None:
    values, known, wanted = torch.rand(1, 9, 2), torch.rand(1, 9, 3), torch.rand(1, 5, 3)
    found = interpolate_points(values, known, wanted)
    for row, place in zip(found[0], wanted[0].tolist(), strict=True):
        near = sorted(range(9), key=lambda i: math.dist(place, known[0, i].tolist()))[:3]
        weights = [1 / math.dist(place, known[0, i].tolist()) ** 2 for i in near]
        expected = sum(w * values[0, i] for w, i in zip(weights, near, strict=True)) / sum(weights)
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(interpolate_points(values, known, known), values, atol=1e-5, rtol=1e-5)
    assert interpolate_points(values[:, :2], known[:, :2], wanted).shape == (1, 5, 2)  # fewer than three are known


def test_sampling_draws_repeats_and_filters() -> None:
    sampling = PointSampling(8, (0.0, 0.0, 0.0, 10.0, 10.0, 10.0))
    many, few = torch.rand(20, 4), torch.rand(3, 4) + 5
    bad = torch.tensor([[math.nan, 1, 1, 0], [11, 1, 1, 0], [1, 1, 1, math.inf]])
    for training in (False, True):
        found = sample_points([many, torch.cat([few, bad]), bad], sampling, training=training)
        assert found.points.shape == (3, 8, 4)
        assert found.empty.tolist() == [False, False, True]
        assert not found.points[2].any()
        assert len(found.points[0].unique(dim=0)) == 8  # without replacement
        assert {tuple(row) for row in found.points[1].tolist()} == {tuple(row) for row in few.tolist()}
    again = sample_points([many], sampling)
    assert torch.equal(again.points, sample_points([many], sampling).points)
    with pytest.raises(ShapeError, match=r"tensors \(n, D\) of one width"):
        sample_points([many, torch.rand(2, 5)], sampling)
    with pytest.raises(ConfigError, match="a range with an extent"):
        PointSampling(8, (0.0, 0.0, 0.0, 10.0, 0.0, 10.0))
