# ResNet-8 by cross-entropy on long-tailed digits: the teacher of vision/trg/digits.
#   limbeck train vision/trg/digits_trg_teacher
#   limbeck test vision/trg/digits_trg_teacher --checkpoint work_dirs/digits_trg_teacher/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller
from limbeck_vision.models import ImageCall, resnet8

with read_base():
    from .._base_.digits_long_tailed import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8, num_classes=10, normalization=None),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
