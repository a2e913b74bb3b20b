# KD alone on long-tailed digits: the control of vision/trg/digits.
#   limbeck train vision/trg/digits_trg_teacher                 (once)
#   limbeck train vision/trg/digits_kd
#   limbeck test vision/trg/digits_kd --checkpoint work_dirs/digits_kd/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.models import ImageCall, resnet8, resnet8_quarter

with read_base():
    from .._base_.digits_long_tailed import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet8, num_classes=10, normalization=None),
        checkpoint="work_dirs/digits_trg_teacher/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    task_weight=0.1,
    matches=dict(
        kd=dict(type=Match, loss=dict(type=KLDivergenceLoss, temperature=4.0), student="fc", teacher="fc", weight=0.9),
    ),
)
# rate: the best of 0.05, 0.1 and 0.2 on held-out training images; the same search was made for every arm
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True))
