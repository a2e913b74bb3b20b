# ResNet-8 of a quarter of the width on digits, by cross-entropy alone: the quickstart's plain student.
#   limbeck train vision/digits/plain
#   limbeck test vision/digits/plain --checkpoint work_dirs/plain/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller
from limbeck_vision.models import ImageCall, resnet8_quarter

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)

# of 0.05, 0.1, 0.2 and 0.4 the best on 300 held-out training images; the same search was made for every model
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
