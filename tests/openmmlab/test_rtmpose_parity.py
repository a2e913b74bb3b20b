"""Our RTMPose and mmpose's, with the same weights: the same scores, in evaluation and in training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limbeck_core import openmmlab
from limbeck_core.mmcv_operators import use_mmcv
from limbeck_core.weights import load_weights
from limbeck_pose.dwpose import simcc_task_loss
from limbeck_pose.rtmpose import rtmpose_l, rtmpose_t
from limbeck_pose.simcc import SimCC

use_mmcv()

import mmpose  # noqa: E402  after the stand-in: importing its models imports mmcv.ops
from mmpose.codecs import SimCCLabel  # noqa: E402
from mmpose.datasets.datasets.utils import parse_pose_metainfo  # noqa: E402

CONFIGS = Path(mmpose.__file__).parent / ".mim" / "configs" / "wholebody_2d_keypoint" / "rtmpose" / "ubody"


@pytest.mark.parametrize(
    ("config", "ours"),
    [
        ("rtmpose-t_8xb64-270e_coco-ubody-wholebody-256x192.py", rtmpose_t),
        ("rtmpose-l_8xb32-270e_coco-ubody-wholebody-384x288.py", lambda: rtmpose_l(input_size=(384, 288))),
    ],
    ids=["t-256x192", "l-384x288"],
)
def test_same_weights_same_scores(config: str, ours: object, tmp_path: Path) -> None:
    theirs = openmmlab(CONFIGS / config, overrides={"model.backbone.init_cfg": None})
    for module in theirs.modules():  # statistics and scales that are not those of construction
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    for parameter in theirs.head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    model = ours()  # type: ignore[operator]
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "theirs.pth")
    report = load_weights(model, tmp_path / "theirs.pth")
    assert not report.missing
    assert not report.unexpected
    height, width = model.input_size
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)  # BGR, as OpenCV reads
    batch = [image, image.flip(1)]
    prepared = theirs.data_preprocessor({"inputs": batch, "data_samples": []}, False)["inputs"]
    ours_prepared = (torch.stack(batch).flip(1) - model.mean) / model.std
    torch.testing.assert_close(ours_prepared, prepared)
    theirs.double()
    model.double()
    for training in (False, True):
        theirs.train(training)
        model.train(training)
        expected = theirs(prepared.double(), None, mode="tensor")
        got = model.head(model.backbone(prepared.double()))
        for axis, reference in zip(got, expected, strict=True):
            torch.testing.assert_close(axis, reference, rtol=1e-9, atol=1e-9)


def test_same_loss_and_same_labels() -> None:
    """A second hand beside the golden vectors: the installed release instead of DWPose's fork."""
    torch.manual_seed(0)
    from mmpose.models.losses import KLDiscretLoss

    points = torch.rand(3, 133, 2) * torch.tensor([190.0, 250.0])
    visible = (torch.rand(3, 133) > 0.3).float()
    reference = SimCCLabel((192, 256), sigma=(4.9, 5.66), simcc_split_ratio=2.0, normalize=False, use_dark=False)
    targets = SimCC((256, 192)).encode(points, visible)
    encoded = [reference.encode(p[None].numpy(), v[None].numpy()) for p, v in zip(points, visible, strict=True)]
    for name, ours in (("keypoint_x_labels", targets.x), ("keypoint_weights", targets.weight)):
        torch.testing.assert_close(ours, torch.stack([torch.from_numpy(e[name][0]) for e in encoded]).float())
    scores = [torch.randn(3, 133, 384), torch.randn(3, 133, 512)]
    expected = KLDiscretLoss(beta=10.0, label_softmax=True)(scores, (targets.x, targets.y), targets.weight)
    ours = sum(
        simcc_task_loss(s, t, targets.weight, reduction="sum")
        for s, t in zip(scores, (targets.x, targets.y), strict=True)
    )
    torch.testing.assert_close(ours, expected)


def test_the_layout_is_that_of_coco_wholebody() -> None:
    from limbeck_pose.keypoints import WHOLE_BODY

    path = Path(mmpose.__file__).parent / ".mim" / "configs" / "_base_" / "datasets" / "coco_wholebody.py"
    theirs = parse_pose_metainfo(dict(from_file=str(path)))
    assert WHOLE_BODY.mirrored == list(theirs["flip_indices"])
    assert WHOLE_BODY.sigmas == pytest.approx(tuple(float(s) for s in theirs["sigmas"]))
    assert WHOLE_BODY.upper == tuple(theirs["upper_body_ids"])
    assert WHOLE_BODY.lower == tuple(theirs["lower_body_ids"])
    assert {frozenset(link) for link in WHOLE_BODY.links} >= {frozenset(link) for link in theirs["skeleton_links"]}
