# PS-KD on folders of 32x32 images: the student is taught by itself of one epoch ago.
# model.teacher.past.num_samples is the number of training images.
#   limbeck train vision/folder32/ps_kd --data-root DATA
#   limbeck test vision/folder32/ps_kd --data-root DATA --checkpoint work_dirs/folder32_ps_kd/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, PastSelf
from limbeck_core.losses import SoftTargetCrossEntropyLoss
from limbeck_core.schedules import Complement, WarmUp
from limbeck_vision.models import ImageCall, resnet8

with read_base():
    from .._base_.folder32 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8, num_classes=10, normalization=None),
    teacher=dict(past=dict(type=PastSelf, num_samples=6000, num_classes=10, logits="fc")),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    task_weight=dict(type=Complement, schedule=dict(type=WarmUp, value=0.8)),
    matches=dict(
        ps_kd=dict(
            type=Match,
            loss=dict(type=SoftTargetCrossEntropyLoss),
            student="fc",
            teacher="",
            weight=dict(type=WarmUp, value=0.8),
        ),
    ),
)

optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
work_dir = "work_dirs/folder32_ps_kd"
