# DKD on digits: the student of vision/digits/plain at the same budget, taught by vision/digits/teacher.
# Warm-up over 2 of 20 epochs.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/classics/digits_dkd
#   limbeck test vision/classics/digits_dkd --checkpoint work_dirs/digits_dkd/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import DecoupledKDLoss
from limbeck_core.schedules import WarmUp
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

# of 0.05, 0.1, 0.2 and 0.4 the best on 300 held-out training images (2 seeds); weights are those of CIFAR-100
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.4, momentum=0.9, weight_decay=5e-4, nesterov=True))
