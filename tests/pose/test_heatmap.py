"""Heatmaps: codec, head, task loss, and SimCC's losses on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from limbeck_core import Distiller, Match
from limbeck_core.adapters import ConvAdapter
from limbeck_core.errors import NonFiniteError, ShapeError
from limbeck_core.losses import SquaredDistanceLoss
from limbeck_pose.data import People
from limbeck_pose.dwpose import SimCCDivergenceLoss
from limbeck_pose.evaluation import CorrectKeypoints
from limbeck_pose.figures import FigureHeatmaps, FigurePose
from limbeck_pose.heatmap import AxisScores, Heatmap, HeatmapTaskLoss
from limbeck_pose.rendered import CHAIN, render
from limbeck_pose.simcc import SimCC


def points(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 50 + 6


def test_round_trip_within_an_eighth_of_a_cell_and_a_bit() -> None:
    codec = Heatmap((64, 64))
    truth = points()
    encoded = codec.encode(truth, torch.ones(2, 5))
    assert encoded.heatmaps.shape == (2, 5, 16, 16)
    found, scores = codec.decode(encoded.heatmaps)
    assert (found - truth).abs().max() <= 4 * 0.25 + 1e-9
    assert (scores > 0.9).all()


def test_points_outside_and_unlabelled_have_no_heatmap() -> None:
    codec = Heatmap((64, 32), sigma=1.0)
    keypoints = torch.tensor([[[-13.0, 5.0], [-11.0, 5.0], [16.0, 80.0], [float("nan"), 1.0], [5.0, 5.0]]])
    encoded = codec.encode(keypoints, torch.tensor([[1.0, 1.0, 1.0, 0.0, 1.0]]))
    assert encoded.weight.tolist() == [[0.0, 1.0, 0.0, 0.0, 1.0]]
    assert encoded.heatmaps[0, [0, 2, 3]].abs().max() == 0
    found, scores = codec.decode(encoded.heatmaps)
    assert scores[0, 0] == 0
    assert found[0, 0].tolist() == [-4.0, -4.0]


def test_what_does_not_fit_is_told() -> None:
    codec = Heatmap((64, 32))
    with pytest.raises(ShapeError, match=r"heatmaps must have shape \(N, K, 16, 8\).*got \(1, 5, 8, 16\)"):
        codec.decode(torch.zeros(1, 5, 8, 16))
    with pytest.raises(ShapeError, match="divisible by 4"):
        Heatmap((66, 32))
    with pytest.raises(NonFiniteError, match=r"key point 1 of person 0 is labelled and lies at \[nan, 1.0\]"):
        codec.encode(torch.tensor([[[1.0, 1.0], [float("nan"), 1.0]]]), torch.ones(1, 2))
    with pytest.raises(ShapeError, match=r"expected targets \(heatmaps, weight\), got 3 tensors"):
        HeatmapTaskLoss()(torch.zeros(1, 2, 4, 4), [torch.zeros(1)] * 3)
    with pytest.raises(ShapeError, match="one value a key point"):
        HeatmapTaskLoss()(torch.zeros(1, 2, 4, 4), [torch.zeros(1, 2, 4, 4), torch.zeros(1, 3)])
    with pytest.raises(ValueError, match="axis must be 'x' or 'y', got 'z'"):
        AxisScores("z")  # type: ignore[arg-type]


def test_the_task_loss_counts_labelled_points_alone() -> None:
    heatmaps, truth = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    weight = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert HeatmapTaskLoss(reduction="none")(heatmaps, [truth, weight]).tolist() == pytest.approx([2 / 3, 0])
    empty = torch.zeros(0, 3, 4, 4, requires_grad=True)
    loss = HeatmapTaskLoss()(empty, [truth[:0], weight[:0]])
    loss.backward()
    assert loss.item() == 0


def test_a_heatmap_says_along_each_axis_what_simcc_says() -> None:
    truth = (points() / 4).round() * 4  # on cells, so that lines between them are no approximation at the peak
    # 2 bins a pixel, 4 pixels a cell
    maps = Heatmap((64, 64), sigma=1.0).encode(truth, torch.ones(2, 5)).heatmaps
    labels = SimCC((64, 64), sigma=(8.0, 8.0)).encode(truth, torch.ones(2, 5))
    for axis, label in (("x", labels.x), ("y", labels.y)):
        scores = AxisScores(axis, bins=128)(maps)  # type: ignore[arg-type]
        assert scores.shape == label.shape
        assert torch.equal(scores.argmax(-1), label.argmax(-1))
        assert (scores - label)[..., :121].abs().max() < 0.12, "beyond the last cell there is nothing to interpolate"
    assert AxisScores("x")(maps).shape == (2, 5, 16)


def distiller(student: nn.Module, teacher: nn.Module, adapters: tuple[type | None, type | None]) -> Distiller:
    def adapter(kind: type | None, axis: str) -> nn.Module | None:
        return None if kind is None else kind(axis, bins=128)

    def tap(kind: type | None, axis: str) -> str:
        return "head" if kind else f"head.cls_{axis}"

    ours, theirs = adapters
    matches = {
        axis: Match(
            SimCCDivergenceLoss(), tap(ours, axis), tap(theirs, axis),
            adapter=adapter(ours, axis), teacher_adapter=adapter(theirs, axis),
        )
        for axis in "xy"
    }  # fmt: skip
    matches["features"] = Match(SquaredDistanceLoss(), "backbone", "backbone", adapter=ConvAdapter(8, 12))
    return Distiller(student, teacher, matches)


@pytest.mark.parametrize(
    ("student", "teacher", "adapters"),
    [
        (FigureHeatmaps, FigureHeatmaps, (AxisScores, AxisScores)),
        (FigureHeatmaps, FigurePose, (AxisScores, None)),
        (FigurePose, FigureHeatmaps, (None, AxisScores)),
    ],
    ids=["heatmaps by heatmaps", "heatmaps by simcc", "simcc by heatmaps"],
)
def test_dwposes_losses_on_heatmap_models(student: type, teacher: type, adapters: tuple[type, type]) -> None:
    model = distiller(student(8), teacher(12), adapters).train()
    losses = model({"inputs": torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)})
    assert set(losses) == {"loss/x", "loss/y", "loss/features"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.student.parameters())


def test_data_and_evaluators_take_heatmaps(tmp_path: Path) -> None:
    render(tmp_path, train=1, val=3)
    codec = Heatmap((64, 64), sigma=1.0)
    people = People("val.json", images="val", root=tmp_path, codec=codec, layout=CHAIN)
    items = [people[number] for number in range(3)]
    assert [target.shape for target in items[0]["targets"]] == [(10, 16, 16), (10,)]
    batch = {"person": {name: [item["person"][name] for item in items] for name in items[0]["person"]}}
    metric = CorrectKeypoints(codec, pixels=2.0)
    metric.process(batch, [item["targets"][0] for item in items])
    assert metric.evaluate(size=3)["pck"] == 100.0
    with pytest.raises(ShapeError, match="a SimCC codec reads two tensors"):
        CorrectKeypoints(SimCC((64, 64)), pixels=2.0).process(batch, [item["targets"][0] for item in items])
    with pytest.raises(ShapeError, match="the model has 7 key points, the data set has 10"):
        metric.process(batch, torch.zeros(3, 7, 16, 16))
    assert np.isfinite(metric.per_sample["pck"]).all()
