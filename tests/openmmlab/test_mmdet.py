"""Detectors of mmdet, by their own released config files, as teacher and student."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mmengine
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from torch import nn

from limbeck_core import Distiller, Match, OpenMMLabCall, openmmlab
from limbeck_core.errors import LimbeckError, MissingDependency, TapError
from limbeck_core.losses import ChannelWiseDivergenceLoss, PearsonFeatureLoss
from limbeck_core.mmcv_operators import Operators, use_mmcv

use_mmcv()

import mmdet  # noqa: E402  after the stand-in: importing it imports mmcv.ops
from mmdet.structures import DetDataSample  # noqa: E402

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
SMALL = {"model.backbone.init_cfg": None, "model.backbone.depth": 18, "model.neck.in_channels": [64, 128, 256, 512]}
NO_DOWNLOAD = {"model.backbone.init_cfg": None}


def batch(count: int = 2, size: int = 96) -> dict[str, Any]:
    torch.manual_seed(0)
    samples = []
    for _ in range(count):
        sample = DetDataSample(
            metainfo={"img_shape": (size, size), "ori_shape": (size, size), "pad_shape": (size, size),
                      "batch_input_shape": (size, size), "scale_factor": (1.0, 1.0), "img_id": 0}
        )  # fmt: skip
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[8.0, 8.0, 60.0, 50.0], [30.0, 40.0, 90.0, 90.0]]), labels=torch.tensor([3, 17])
        )
        samples.append(sample)
    images = [torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for _ in range(count)]
    return {"inputs": images, "data_samples": samples}


def fpn_matches() -> dict[str, Match]:
    return {
        f"fpn{level}": Match(PearsonFeatureLoss(), f"neck.fpn_convs.{level}", f"neck.fpn_convs.{level}", weight=2.0)
        for level in range(3)
    }


def test_a_released_config_builds_and_a_checkpoint_of_its_keys_loads(tmp_path: Path) -> None:
    config = CONFIGS / "gfl" / "gfl_r50_fpn_1x_coco.py"
    source = openmmlab(config, overrides=SMALL)
    torch.save({"state_dict": source.state_dict(), "meta": {"epoch": 1}}, tmp_path / "gfl.pth")
    model = openmmlab(config, tmp_path / "gfl.pth", overrides=SMALL)
    for (name, ours), theirs in zip(model.state_dict().items(), source.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_gfl_distils_its_feature_pyramid_and_trains() -> None:
    config = CONFIGS / "gfl" / "gfl_r50_fpn_1x_coco.py"
    student, teacher = openmmlab(config, overrides=SMALL), openmmlab(config, overrides=SMALL)
    distiller = Distiller(student, teacher, fpn_matches(), call=OpenMMLabCall())
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD(distiller.parameters(), lr=1e-3)
    sizes = []
    for _ in range(3):
        losses = distiller(**batch())
        total, _ = distiller.parse_losses(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        sizes.append(float(sum(losses[f"loss/fpn{level}"].detach() for level in range(3))))
    assert {"loss_cls", "loss_bbox", "loss_dfl", "loss/fpn0"} <= losses.keys()
    assert sizes[-1] < sizes[0], "the same batch three times"
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(key.startswith("teacher") for key in distiller.state_dict())


def test_the_tap_of_a_shared_head_asks_which_call() -> None:
    config = CONFIGS / "gfl" / "gfl_r50_fpn_1x_coco.py"
    student, teacher = openmmlab(config, overrides=SMALL), openmmlab(config, overrides=SMALL)
    head = {"cls": Match(ChannelWiseDivergenceLoss(), "bbox_head.gfl_cls", "bbox_head.gfl_cls")}
    with pytest.raises(TapError, match=r"called 5 times.*call="):
        Distiller(student, teacher, head, call=OpenMMLabCall())(**batch())


def test_predictions_use_the_stand_ins_suppression() -> None:
    model = openmmlab(
        CONFIGS / "faster_rcnn" / "faster-rcnn_r50_fpn_1x_coco.py",
        overrides={**SMALL, "model.roi_head.bbox_roi_extractor.roi_layer.use_torchvision": True},
    ).eval()
    distiller = Distiller(model, None, call=OpenMMLabCall()).eval()
    with torch.no_grad():
        predicted = distiller(**batch(1), mode="predict")
    assert isinstance(predicted[0], DetDataSample)
    assert predicted[0].pred_instances.bboxes.shape[1] == 4


def test_dino_teaches_dino() -> None:
    overrides = {
        **NO_DOWNLOAD,
        "model.backbone.depth": 18,
        "model.neck.in_channels": [128, 256, 512],
        "model.num_queries": 20,
        "model.encoder.num_layers": 1,
        "model.decoder.num_layers": 2,
    }
    config = CONFIGS / "dino" / "dino-4scale_r50_8xb2-12e_coco.py"
    student, teacher = openmmlab(config, overrides=overrides), openmmlab(config, overrides=overrides)
    matches = {"memory": Match(PearsonFeatureLoss(), "neck.convs.0", "neck.convs.0")}
    losses = Distiller(student, teacher, matches, call=OpenMMLabCall())(**batch())
    total = sum(value for name, value in losses.items() if "loss" in name)
    total.backward()
    assert torch.isfinite(total)
    assert {"loss_cls", "dn_loss_bbox", "loss/memory"} <= losses.keys()


def test_an_operator_that_is_missing_says_so() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    scores = torch.tensor([0.5, 0.9, 0.3])
    assert Operators.nms(boxes, scores, 0.5, 0).tolist() == [1, 2]
    with pytest.raises(MissingDependency, match="'roi_align_forward'.*use_torchvision=True"):
        Operators("mmcv._ext").roi_align_forward(boxes)
    model = openmmlab(CONFIGS / "faster_rcnn" / "faster-rcnn_r50_fpn_1x_coco.py", overrides=SMALL).eval()
    with pytest.raises(LimbeckError, match="roi_align_forward"), torch.no_grad():
        Distiller(model, None, call=OpenMMLabCall()).eval()(**batch(1), mode="predict")


def test_building_logs_no_paragraph_a_weight() -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: records.append(record) if "torch.Size" in record.getMessage() else None
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        model = openmmlab(CONFIGS / "gfl" / "gfl_r50_fpn_1x_coco.py", overrides=SMALL)
        quiet = len(records)
        for module in model.modules():
            module._is_init = False
        model.init_weights()
    finally:
        logger.removeHandler(handler)
    assert quiet == 0
    assert len(records) > 50, "what it would have said"


def test_every_weight_survives_the_distiller() -> None:
    """OpenMMLab's runner draws weights anew by calling ``init_weights``; ours are decided when they are built."""
    student = openmmlab(CONFIGS / "gfl" / "gfl_r50_fpn_1x_coco.py", overrides=SMALL)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    distiller = Distiller(student, None, call=OpenMMLabCall())
    distiller.init_weights()
    assert isinstance(distiller, nn.Module)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_which_mmengine_this_is() -> None:
    """The fork has the same import name: the version in the report says which of the two was tested."""
    print(f"mmengine {mmengine.__version__} from {Path(mmengine.__file__).parent}")
    assert mmengine.__version__.startswith("0.10.")
