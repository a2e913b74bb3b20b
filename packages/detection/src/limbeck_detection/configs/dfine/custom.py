# D-FINE-S on your own boxes, from COCO's or Objects365's weights; the score heads start anew.
# DATA holds train/, val/, train.json and val.json in COCO's format. The data set reads its classes from the file; the
# model is told how many, and a number that does not fit is refused before the first step:
#   limbeck train detection/dfine/custom --data-root DATA --cfg-options model.student.model.num_classes=3
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_core.engine import EpochLoop
from limbeck_detection.calls import DetectionCall
from limbeck_detection.data import CocoDetection, DFINEAugmentation, multi_scale_batch
from limbeck_detection.dfine import DFINECriterion, dfine_s
from limbeck_detection.training import ClassCheckHook, DetectorEMAHook, DetectorParameterGroups, fine_tuned

with read_base():
    from .._base_.coco import *

model = dict(
    type=Distiller,
    student=dict(
        type=fine_tuned,
        model=dict(type=dfine_s, num_classes=80),
        checkpoint="checkpoints/dfine_s_coco.pth",
        fresh_heads=True,
    ),
    call=dict(type=DetectionCall),
    task_loss=dict(type=DFINECriterion),
)
train_dataloader = dict(
    dataset=dict(
        type=CocoDetection,
        root=".",
        images="train",
        annotations="train.json",
        transform=dict(type=DFINEAugmentation, size=640, stop_epoch=56),
    ),
    batch_size=8,
    drop_last=True,
    num_workers=4,
    collate_fn=dict(type=multi_scale_batch, size=640, repeat=20, stop_epoch=56),
)
val_dataloader.update(
    dataset=dict(
        type=CocoDetection,
        root=".",
        images="val",
        annotations="val.json",
        transform=dict(type=StretchTo, size=640),
        truth=True,
    )
)
test_dataloader = val_dataloader
train_cfg = dict(type=EpochLoop, max_epochs=64)
optim_wrapper = dict(
    constructor=DetectorParameterGroups,
    paramwise_cfg=dict(backbone_lr_mult=0.5),
    optimizer=dict(type=AdamW, lr=2.5e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1),
)
custom_hooks = [dict(type=ClassCheckHook), dict(type=DetectorEMAHook, restart_epoch=56, second_momentum=0.9999)]
