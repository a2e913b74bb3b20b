# KD on digits: the same student as vision/digits/plain at the same budget, taught by vision/digits/teacher.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/digits/kd
#   limbeck test vision/digits/kd --checkpoint work_dirs/kd/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.models import ImageCall, resnet8, resnet8_eighth

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_eighth, num_classes=10),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet8, num_classes=10, normalization=None),
        checkpoint="work_dirs/teacher/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    task_weight=0.1,
    matches=dict(
        kd=dict(type=Match, loss=dict(type=KLDivergenceLoss, temperature=4.0), student="fc", teacher="fc", weight=0.9),
    ),
)
