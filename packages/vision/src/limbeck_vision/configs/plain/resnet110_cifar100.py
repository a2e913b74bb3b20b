# ResNet-110 on CIFAR-100 by cross-entropy alone: a teacher, or a student's control.
# Recipe of the CRD and DKD tables. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet110_cifar100 --data-root DATA
#   limbeck test vision/plain/resnet110_cifar100 --data-root DATA \
#       --checkpoint work_dirs/resnet110_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller
from limbeck_vision.models import ImageCall, resnet110

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet110, num_classes=100),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)
