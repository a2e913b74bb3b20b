# TAKD on digits, stage 1 of 2: ResNet-8 teaches the assistant, a ResNet-8 of half the width.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/classics/digits_takd_stage1
#   limbeck test vision/classics/digits_takd_stage1 --checkpoint work_dirs/digits_takd_stage1/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.models import ImageCall, resnet8, resnet8_half

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_half, num_classes=10),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet8, num_classes=10, normalization=None),
        checkpoint="work_dirs/teacher/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    task_weight=0.1,
    matches=dict(
        kd=dict(
            type=Match,
            loss=dict(type=KLDivergenceLoss, temperature=4.0),
            student="fc",
            teacher="fc",
            weight=0.9,
        ),
    ),
)

# the rate of vision/digits/kd; not tuned for this method
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.4, momentum=0.9, weight_decay=5e-4, nesterov=True))
