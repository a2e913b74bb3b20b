# DKD on folders of 32x32 images: ResNet-8 taught by ResNet-20.
#   limbeck train vision/folder32/teacher --data-root DATA      (once)
#   limbeck train vision/folder32/dkd --data-root DATA
#   limbeck test vision/folder32/dkd --data-root DATA --checkpoint work_dirs/folder32_dkd/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import DecoupledKDLoss
from limbeck_core.schedules import WarmUp
from limbeck_vision.models import ImageCall, resnet8, resnet20

with read_base():
    from .._base_.folder32 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8, num_classes=10, normalization=None),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet20, num_classes=10, normalization=None),
        checkpoint="work_dirs/folder32_teacher/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        dkd=dict(
            type=Match,
            loss=dict(type=DecoupledKDLoss, temperature=4.0, target_weight=1.0, non_target_weight=2.0),
            student="fc",
            teacher="fc",
            weight=dict(type=WarmUp, value=1.0, length=2),
        ),
    ),
)

optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
work_dir = "work_dirs/folder32_dkd"
