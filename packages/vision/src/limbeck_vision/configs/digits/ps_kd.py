# PS-KD on digits: the same student as vision/digits/plain at the same budget; its own past softens the labels.
#   limbeck train vision/digits/ps_kd
#   limbeck test vision/digits/ps_kd --checkpoint work_dirs/digits_ps_kd/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, PastSelf
from limbeck_core.losses import SoftTargetCrossEntropyLoss
from limbeck_core.schedules import Complement, WarmUp
from limbeck_vision.models import ImageCall, resnet8_quarter

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    teacher=dict(past=dict(type=PastSelf, num_samples=1200, num_classes=10, logits="fc")),
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

# of 0.05, 0.1, 0.2 and 0.4 the best on 300 held-out training images; the same search was made for every model
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True))
work_dir = "work_dirs/digits_ps_kd"
