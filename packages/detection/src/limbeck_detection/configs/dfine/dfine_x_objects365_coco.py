# D-FINE-X on COCO from Objects365's weights, put to checkpoints/: 36 epochs, the last 6 plain.
# Batches of 8 a process, for four processes; LIMBECK_DATA or --data-root says where the data are:
#   torchrun --nproc_per_node 4 -m limbeck_core train detection/dfine/dfine_x_objects365_coco --launcher pytorch
#   limbeck train detection/dfine/dfine_x_objects365_coco --data-root DATA
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_core.engine import EpochLoop
from limbeck_detection.calls import DetectionCall
from limbeck_detection.data import CocoDetection, DFINEAugmentation, multi_scale_batch
from limbeck_detection.dfine import OBJECTS365_TO_COCO, DFINECriterion, dfine_x
from limbeck_detection.training import ClassCheckHook, DetectorEMAHook, DetectorParameterGroups, fine_tuned

with read_base():
    from .._base_.coco import *

model = dict(
    type=Distiller,
    student=dict(
        type=fine_tuned,
        model=dict(type=dfine_x, num_classes=80),
        checkpoint="checkpoints/dfine_x_objects365.pth",
        class_rows=OBJECTS365_TO_COCO,
    ),
    call=dict(type=DetectionCall),
    task_loss=dict(type=DFINECriterion),
)
train_dataloader = dict(
    dataset=dict(
        type=CocoDetection,
        root=".",
        images="train2017",
        annotations="annotations/instances_train2017.json",
        transform=dict(type=DFINEAugmentation, size=640, stop_epoch=30),
    ),
    batch_size=8,
    drop_last=True,
    num_workers=4,
    collate_fn=dict(type=multi_scale_batch, size=640, repeat=3, stop_epoch=30),
)
train_cfg = dict(type=EpochLoop, max_epochs=36)
optim_wrapper = dict(
    constructor=DetectorParameterGroups,
    paramwise_cfg=dict(backbone_lr_mult=0.01),
    optimizer=dict(type=AdamW, lr=2.5e-4, weight_decay=1.25e-4),
    clip_grad=dict(max_norm=0.1),
)
custom_hooks = [dict(type=ClassCheckHook), dict(type=DetectorEMAHook, restart_epoch=30, second_momentum=0.9998)]
