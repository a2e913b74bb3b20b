"""Pose estimators of mmpose, by their own released config files, as teacher and student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.structures import InstanceData

from limbeck_core import Distiller, Match, OpenMMLabCall, openmmlab
from limbeck_core.losses import KLDivergenceLoss, SquaredDistanceLoss
from limbeck_core.mmcv_operators import use_mmcv

use_mmcv()

import mmpose  # noqa: E402  after the stand-in: importing its models imports mmcv.ops
from mmpose.structures import PoseDataSample  # noqa: E402

CONFIGS = Path(mmpose.__file__).parent / ".mim" / "configs" / "wholebody_2d_keypoint" / "rtmpose" / "ubody"
TINY = CONFIGS / "rtmpose-t_8xb64-270e_coco-ubody-wholebody-256x192.py"
NO_DOWNLOAD = {"model.backbone.init_cfg": None}


def batch(count: int = 2) -> dict[str, Any]:
    torch.manual_seed(0)
    samples = []
    for _ in range(count):
        sample = PoseDataSample(metainfo={"input_size": (192, 256), "img_shape": (256, 192)})
        sample.gt_instance_labels = InstanceData(
            keypoint_x_labels=torch.rand(1, 133, 384),
            keypoint_y_labels=torch.rand(1, 133, 512),
            keypoint_weights=torch.ones(1, 133),
        )
        sample.gt_instances = InstanceData(keypoints=torch.rand(1, 133, 2).numpy())
        samples.append(sample)
    return {"inputs": [torch.randint(0, 256, (3, 256, 192), dtype=torch.uint8) for _ in range(count)],
            "data_samples": samples}  # fmt: skip


def test_rtmpose_reads_the_layers_that_its_head_calls_in_training() -> None:
    student, teacher = openmmlab(TINY, overrides=NO_DOWNLOAD), openmmlab(TINY, overrides=NO_DOWNLOAD)
    matches = {
        "features": Match(SquaredDistanceLoss(), "backbone.stage4", "backbone.stage4"),
        "x": Match(KLDivergenceLoss(), "head.cls_x", "head.cls_x"),
        "y": Match(KLDivergenceLoss(), "head.cls_y", "head.cls_y"),
    }
    losses = Distiller(student, teacher, matches, call=OpenMMLabCall())(**batch())
    assert {"loss_kpt", "loss/features", "loss/x", "loss/y"} <= losses.keys()
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)
    assert not any(p.grad is not None for p in teacher.parameters())
