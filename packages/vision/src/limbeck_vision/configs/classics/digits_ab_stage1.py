# AB on digits, stage 1 of 2: on which side of zero each neuron responds, without labels.
# 5 epochs; the classifier waits.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/classics/digits_ab_stage1
from mmengine.config import read_base
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.adapters import ConvAdapter
from limbeck_core.engine import EpochLoop
from limbeck_core.losses import ActivationBoundaryLoss
from limbeck_vision.models import ImageCall, resnet8, resnet8_quarter

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet8, num_classes=10, normalization=None),
        checkpoint="work_dirs/teacher/student.pth",
    ),
    call=dict(type=ImageCall),
    matches=dict(
        ab1=dict(
            type=Match,
            loss=dict(type=ActivationBoundaryLoss, margin=1.0),
            student="layer1.preact",
            teacher="layer1.preact",
            adapter=dict(type=ConvAdapter, in_channels=4, out_channels=16, norm=True),
            weight=0.75e-3,
        ),
        ab2=dict(
            type=Match,
            loss=dict(type=ActivationBoundaryLoss, margin=1.0),
            student="layer2.preact",
            teacher="layer2.preact",
            adapter=dict(type=ConvAdapter, in_channels=8, out_channels=32, norm=True),
            weight=1.5e-3,
        ),
        ab3=dict(
            type=Match,
            loss=dict(type=ActivationBoundaryLoss, margin=1.0),
            student="layer3.preact",
            teacher="layer3.preact",
            adapter=dict(type=ConvAdapter, in_channels=16, out_channels=64, norm=True),
            weight=3e-3,
        ),
    ),
    freeze=("fc",),
)

val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
train_cfg = dict(type=EpochLoop, max_epochs=5)
param_scheduler = None

optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
