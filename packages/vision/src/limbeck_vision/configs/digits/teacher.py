# ResNet-8 on the digits that scikit-learn ships: the quickstart's teacher, by cross-entropy alone.
#   limbeck train vision/digits/teacher
#   limbeck test vision/digits/teacher --checkpoint work_dirs/teacher/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller
from limbeck_vision.models import ImageCall, resnet8

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8, num_classes=10, normalization=None),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)

# of 0.05, 0.1, 0.2 and 0.4 the best on 300 held-out training images; the same search was made for every model
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
