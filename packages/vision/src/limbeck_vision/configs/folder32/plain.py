# ResNet-8 on folders of 32x32 images, by cross-entropy alone.
#   limbeck train vision/folder32/plain --data-root DATA
#   limbeck test vision/folder32/plain --data-root DATA --checkpoint work_dirs/folder32_plain/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller
from limbeck_vision.models import ImageCall, resnet8

with read_base():
    from .._base_.folder32 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8, num_classes=10, normalization=None),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)

optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
work_dir = "work_dirs/folder32_plain"
