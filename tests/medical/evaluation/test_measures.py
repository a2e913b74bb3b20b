"""Measures by hand: cubes of known overlap and distance, on grids that are not isotropic, and what is not there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck_core.errors import DataError, ShapeError, TargetError
from limbeck_medical.evaluation import bootstrap_mean, measure_case, summarize, table
from limbeck_medical.evaluation.metric import SegmentationMetric


def cube(start: int, label: int = 1, side: int = 4, shape: tuple[int, ...] = (16, 12, 12)) -> Tensor:
    labels = torch.zeros(shape, dtype=torch.long)
    labels[start : start + side, 4:8, 4:8] = label
    return labels


def test_a_cube_moved_along_a_thick_axis() -> None:
    """Half of it overlaps, so Dice is 1/2; its front faces lie two slices of 3 mm apart."""
    found = measure_case(cube(6), cube(4), 2, spacing=(3.0, 1.0, 1.0))
    assert found.dice[0] == pytest.approx(50.0)
    assert found.hd95[0] == pytest.approx(6.0)
    assert 0 < found.asd[0] < 6.0
    assert found.volume_error[0] == 0.0
    assert found.states == ("present",)
    in_voxels = measure_case(cube(6), cube(4), 2)
    assert in_voxels.hd95[0] == pytest.approx(2.0)


def test_a_perfect_prediction() -> None:
    found = measure_case(cube(4), cube(4), 2)
    assert (found.dice[0], found.hd95[0], found.asd[0], found.volume_error[0]) == (100.0, 0.0, 0.0, 0.0)


def test_volume_error_is_of_the_true_volume() -> None:
    assert measure_case(cube(4, side=6), cube(4), 2, distances=False).volume_error[0] == pytest.approx(50.0)


def test_pictures_have_two_axes() -> None:
    labels = torch.zeros(8, 10, dtype=torch.long)
    labels[2:5, 3:7] = 1
    moved = labels.roll(1, 1)
    found = measure_case(moved, labels, 2)
    assert found.dice[0] == pytest.approx(75.0)
    assert found.hd95[0] == pytest.approx(1.0)


def test_structures_that_are_missing() -> None:
    """Of class 1 nothing is predicted, class 2 is invented, class 3 is nowhere."""
    truth, predicted = cube(4, 1), cube(4, 2)
    found = measure_case(predicted, truth, 4, spacing=(3.0, 1.0, 1.0))
    assert found.states == ("missed", "invented", "absent from both")
    assert found.dice[:2].tolist() == [0.0, 0.0]
    assert math.isnan(found.dice[2])
    assert np.isnan(found.hd95).all()
    assert found.volume_error[0] == 100.0
    assert np.isnan(found.volume_error[1:]).all()
    diagonal = math.sqrt(48.0**2 + 12**2 + 12**2)
    penalised = measure_case(predicted, truth, 4, spacing=(3.0, 1.0, 1.0), missing_distance="diagonal")
    assert penalised.hd95[:2].tolist() == pytest.approx([diagonal, diagonal])
    assert math.isnan(penalised.asd[2])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="prediction and target must have one shape of two or three axes"):
        measure_case(cube(4)[:-1], cube(4), 2)
    with pytest.raises(ShapeError, match="spacing must have 3 entries, one for each axis, got .1.0, 1.0."):
        measure_case(cube(4), cube(4), 2, spacing=(1.0, 1.0))
    with pytest.raises(TargetError, match="prediction must hold classes from 0 to 1, got 0 to 3"):
        measure_case(cube(4, 3), cube(4), 2)
    with pytest.raises(ValueError, match="missing_distance one of exclude, diagonal, got 2 and 'infinite'"):
        measure_case(cube(4), cube(4), 2, missing_distance="infinite")  # type: ignore[arg-type]


def test_bootstrap_covers_what_it_should() -> None:
    draw = np.random.RandomState(0)
    hits = 0
    for _ in range(200):
        interval = bootstrap_mean(draw.standard_normal(40), resamples=400)
        hits += interval.low <= 0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_of_little() -> None:
    assert bootstrap_mean(np.array([2.0, np.nan])).mean == 2.0
    assert math.isnan(bootstrap_mean(np.array([2.0])).low)
    empty = bootstrap_mean(np.array([np.nan]))
    assert math.isnan(empty.mean)
    assert empty.cases == 0
    same = bootstrap_mean(np.full(5, 3.0))
    assert (same.mean, same.low, same.high, same.cases) == (3.0, 3.0, 3.0, 5)


def test_summary_says_what_is_missing() -> None:
    scores = [measure_case(cube(6), cube(4), 3), measure_case(cube(4, 2), cube(4, 1), 3)]
    found = summarize(["a", "b"], scores, ("background", "x", "y"))
    assert found["structures"]["x"]["dice"]["mean"] == pytest.approx(25.0)
    assert found["structures"]["x"]["hd95"]["cases"] == 1
    assert found["structures"]["mean"]["dice"]["mean"] == pytest.approx(25.0)  # of 50 and of (0 + 0) / 2
    assert (found["structures"]["mean"]["missed"], found["structures"]["mean"]["invented"]) == (1, 1)
    assert found["structures"]["y"]["hd95"]["mean"] is None
    text = table(found)
    assert "1 times a structure was missed and 1 times invented: its Dice is 0, its distances are infinite" in text
    assert "1 times a structure is absent from truth and prediction: not judged." in text
    with pytest.raises(DataError, match="there is no case to evaluate"):
        summarize([], [], ("background", "x"))


def test_metric_of_a_run() -> None:
    metric = SegmentationMetric(("background", "x"))
    target = torch.stack([cube(4), cube(4)])
    scores = torch.nn.functional.one_hot(torch.stack([cube(6), cube(4)]), 2).movedim(-1, 1).float()
    batch = {"targets": target[:, None], "spacing": torch.tensor([[3.0, 1.0, 1.0]] * 2)}
    metric.process(batch, scores)
    found = metric.evaluate(2)
    assert found["dice"] == pytest.approx(75.0)
    assert found["dice_x"] == pytest.approx(75.0)
    assert found["hd95"] == pytest.approx(3.0)
    assert metric.per_sample["dice"] == pytest.approx([50.0, 100.0])
    with pytest.raises(DataError, match="evaluation needs 'targets' in the batch, it has spacing"):
        metric.process({"spacing": batch["spacing"]}, scores)
    with pytest.raises(ShapeError, match="scores must be .N, 2, .... and targets .N, 1, ..."):
        metric.process(batch, scores[:, :1])
