# ResNet-8 of an eighth of the width on digits, by cross-entropy alone: the quickstart's plain student.
#   limbeck train vision/digits/plain
#   limbeck test vision/digits/plain --checkpoint work_dirs/plain/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller
from limbeck_vision.models import ImageCall, resnet8_eighth

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_eighth, num_classes=10),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)
