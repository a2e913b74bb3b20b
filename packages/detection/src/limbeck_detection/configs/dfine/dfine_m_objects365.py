# D-FINE-M on Objects365, from which detection/dfine/dfine_m_objects365_coco goes on: 36 epochs.
# Batches of 8 a process, for four processes; LIMBECK_DATA or --data-root says where the data are:
#   torchrun --nproc_per_node 4 -m limbeck_core train detection/dfine/dfine_m_objects365 --launcher pytorch
#   limbeck train detection/dfine/dfine_m_objects365 --data-root DATA
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_core.engine import EpochLoop
from limbeck_detection.calls import DetectionCall
from limbeck_detection.data import CocoDetection, DFINEAugmentation, multi_scale_batch
from limbeck_detection.dfine import DFINECriterion, dfine_m
from limbeck_detection.training import ClassCheckHook, DetectorEMAHook, DetectorParameterGroups

with read_base():
    from .._base_.objects365 import *

model = dict(
    type=Distiller,
    student=dict(type=dfine_m, num_classes=365),
    call=dict(type=DetectionCall),
    task_loss=dict(type=DFINECriterion),
)
train_dataloader = dict(
    dataset=dict(
        type=CocoDetection,
        root=".",
        images="train",
        annotations="annotations/zhiyuan_objv2_train.json",
        transform=dict(type=DFINEAugmentation, size=640),
    ),
    batch_size=8,
    drop_last=True,
    num_workers=4,
    collate_fn=dict(type=multi_scale_batch, size=640, repeat=6),
)
train_cfg = dict(type=EpochLoop, max_epochs=36)
optim_wrapper = dict(
    constructor=DetectorParameterGroups,
    paramwise_cfg=dict(backbone_lr_mult=0.1),
    optimizer=dict(type=AdamW, lr=2e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1),
)
custom_hooks = [dict(type=ClassCheckHook), dict(type=DetectorEMAHook)]
