"""This package's data, losses and evaluators on models of mmpose; and its heatmaps and flip test against mmpose's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck_core import Distiller, Match, openmmlab
from limbeck_core.adapters import ConvAdapter
from limbeck_core.errors import DataError
from limbeck_core.losses import SquaredDistanceLoss
from limbeck_core.mmcv_operators import use_mmcv
from limbeck_pose.calls import FlipTest
from limbeck_pose.data import People
from limbeck_pose.dwpose import SimCCDivergenceLoss
from limbeck_pose.evaluation import CorrectKeypoints, correct_keypoints, mean_error
from limbeck_pose.heatmap import AxisScores, Heatmap
from limbeck_pose.keypoints import BODY, WHOLE_BODY
from limbeck_pose.mmpose_models import MMPoseCall
from limbeck_pose.rendered import CHAIN, render
from limbeck_pose.rtmpose import rtmpose_t
from limbeck_pose.simcc import SimCC

use_mmcv()

import mmpose  # noqa: E402  after the stand-in: importing its models imports mmcv.ops
from mmpose.codecs import MSRAHeatmap  # noqa: E402
from mmpose.evaluation.functional import keypoint_nme, keypoint_pck_accuracy  # noqa: E402
from mmpose.models.utils.tta import flip_heatmaps, flip_vectors  # noqa: E402

CONFIGS = Path(mmpose.__file__).parent / ".mim" / "configs"
TINY = CONFIGS / "wholebody_2d_keypoint/rtmpose/ubody/rtmpose-t_8xb64-270e_coco-ubody-wholebody-256x192.py"
HEATMAPS = CONFIGS / "body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py"
NO_DOWNLOAD = {"model.backbone.init_cfg": None}
SMALL = {**NO_DOWNLOAD, "model.backbone.depth": 18, "model.head.in_channels": 512}


def batch(codec: Any, keypoints: int, count: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, keypoints, 2, generator=generator) * 190
    encoded = codec.encode(points, torch.ones(count, keypoints))
    crops = torch.randint(0, 256, (count, 3, 256, 192), dtype=torch.uint8, generator=generator)
    return {"inputs": crops, "targets": list(vars(encoded).values())}


def test_dwpose_on_rtmpose_of_mmpose() -> None:
    """Its RTMPose learns from ours, on our targets, by our losses."""
    student = openmmlab(TINY, overrides=NO_DOWNLOAD)
    matches = {axis: Match(SimCCDivergenceLoss(), f"head.cls_{axis}", f"head.cls_{axis}", weight=0.1) for axis in "xy"}
    matches["features"] = Match(SquaredDistanceLoss(), "backbone.stage4", "backbone", weight=7e-5)
    distiller = Distiller(student, rtmpose_t(), matches, call=MMPoseCall(), teacher_call=FlipTest()).train()
    losses = distiller(batch(SimCC((256, 192)), 133))
    assert {"loss_kpt", "loss/x", "loss/y", "loss/features"} <= losses.keys()
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert all(p.grad is not None for p in student.parameters())


def test_dwpose_on_heatmap_models_of_mmpose() -> None:
    student = openmmlab(HEATMAPS, overrides=SMALL)
    teacher = openmmlab(HEATMAPS, overrides=NO_DOWNLOAD)
    matches: dict[str, Match] = {
        axis: Match(
            SimCCDivergenceLoss(), "head.final_layer", "head.final_layer",
            adapter=AxisScores(axis), teacher_adapter=AxisScores(axis), weight=0.1,
        )
        for axis in ("x", "y")
    }  # fmt: skip
    matches["features"] = Match(
        SquaredDistanceLoss(), "backbone.layer4", "backbone.layer4", adapter=ConvAdapter(512, 2048), weight=7e-5
    )
    distiller = Distiller(student, teacher, matches, call=MMPoseCall()).train()
    losses = distiller(batch(Heatmap((256, 192)), 17))
    assert {"loss_kpt", "loss/x", "loss/y", "loss/features"} <= losses.keys()
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)
    with pytest.raises(DataError, match="or of the Heatmap codec"):
        MMPoseCall().loss(student, {**batch(Heatmap((256, 192)), 17), "targets": [torch.ones(2, 17)]}, "inputs", None)


def test_channels_arrive_as_mmpose_wants_them() -> None:
    """With the same weights, RGB crops give the scores of our model, which takes RGB."""
    theirs = openmmlab(TINY, overrides=NO_DOWNLOAD).eval()
    ours = rtmpose_t().eval()
    ours.load_state_dict({name: value for name, value in theirs.state_dict().items() if name in ours.state_dict()})
    crops = batch(SimCC((256, 192)), 133)
    with torch.no_grad():
        for mine, other in zip(ours(crops["inputs"]), MMPoseCall().predict(theirs, crops, "inputs"), strict=True):
            torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-4)


def test_its_predictions_reach_our_evaluators(tmp_path: Path) -> None:
    render(tmp_path, train=1, val=2)
    codec = Heatmap((64, 64))
    people = People("val.json", images="val", root=tmp_path, codec=codec, layout=CHAIN)
    items = [people[number] for number in range(2)]
    model = openmmlab(HEATMAPS, overrides={**SMALL, "model.head.out_channels": 10}).eval()
    with torch.no_grad():
        heatmaps = MMPoseCall().predict(model, {"inputs": torch.stack([i["inputs"] for i in items])}, "inputs")
    metric = CorrectKeypoints(codec, pixels=4.0)
    metric.process({"person": {k: [i["person"][k] for i in items] for k in items[0]["person"]}}, heatmaps)
    assert 0 <= metric.evaluate(size=2)["pck"] <= 100


def test_heatmaps_as_mmpose_makes_and_reads_them() -> None:
    codec = Heatmap((256, 192))
    theirs = MSRAHeatmap(input_size=(192, 256), heatmap_size=(48, 64), sigma=2, unbiased=True)
    random = np.random.default_rng(0)
    points = random.uniform(-20, 270, (1, 17, 2)).astype(np.float32)
    visible = (random.random((1, 17)) < 0.8).astype(np.float32)
    encoded = codec.encode(torch.from_numpy(points), torch.from_numpy(visible))
    reference = theirs.encode(points, visible)
    kept = (encoded.weight[0] > 0).numpy()
    assert kept.sum() > 5
    # the reference leaves out points less than three deviations outside by its own rounding; both agree on the rest
    both = kept & (reference["keypoint_weights"][0] > 0)
    assert both.sum() >= kept.sum() - 1
    assert np.allclose(encoded.heatmaps[0].numpy()[both], reference["heatmaps"][both], atol=1e-5)
    maps = torch.rand(1, 17, 64, 48, generator=torch.Generator().manual_seed(1))
    found, scores = codec.decode(maps)
    plain = MSRAHeatmap(input_size=(192, 256), heatmap_size=(48, 64), sigma=2)
    expected, expected_scores = plain.decode(maps[0].numpy())
    assert np.allclose(scores[0].numpy(), expected_scores[0])
    inside = (expected[0] > 8).all(1)  # the reference does not move maxima one cell from the border
    assert np.allclose(found[0].numpy()[inside], expected[0][inside], atol=1e-4)


def test_the_flip_test_is_mmposes_where_it_is_not_aligned() -> None:
    torch.manual_seed(0)
    scores, mirrored = ((torch.rand(2, 133, 384), torch.rand(2, 133, 512)) for _ in range(2))
    answers = iter([scores, mirrored])
    model = torch.nn.Identity()
    model.forward = lambda _: next(answers)  # type: ignore[method-assign,assignment]
    ours = FlipTest(aligned=False).predict(model, {"inputs": torch.zeros(2, 3, 4, 4)}, "inputs")
    theirs = flip_vectors(*mirrored, flip_indices=WHOLE_BODY.mirrored)
    for mine, plain, turned in zip(ours, scores, theirs, strict=True):
        torch.testing.assert_close(mine, (plain + turned) * 0.5)
    maps = [torch.rand(2, 17, 8, 6), torch.rand(2, 17, 8, 6)]
    for aligned in (False, True):
        answers = iter([m.clone() for m in maps])
        ours = FlipTest(BODY, aligned=aligned).predict(model, {"inputs": torch.zeros(2, 3, 4, 4)}, "inputs")
        theirs = flip_heatmaps(maps[1].clone(), flip_indices=BODY.mirrored, shift_heatmap=aligned)
        torch.testing.assert_close(ours, (maps[0] + theirs) * 0.5)


def test_pck_and_nme_as_mmpose_counts_them() -> None:
    random = np.random.default_rng(0)
    truth = random.uniform(0, 100, (6, 17, 2))
    found = truth + random.normal(0, 5, truth.shape)
    visible = random.random((6, 17)) < 0.7
    sizes = random.uniform(60, 120, 6)
    both = np.stack([sizes, sizes], 1)
    _, share, _ = keypoint_pck_accuracy(found, truth, visible, 0.05, both)
    # mmpose averages over key points, which have different numbers of labels
    ours, each = correct_keypoints(found, truth, visible.astype(float), sizes)
    assert np.nanmean(each) == pytest.approx(share)
    assert 0.1 < ours < 0.9
    theirs = keypoint_nme(found, truth, visible, both)
    assert mean_error(found, truth, visible.astype(float), sizes)["all"] == pytest.approx(theirs)
