# ShuffleNetV1 on CIFAR-100 by cross-entropy alone: a teacher, or a student's control.
# Recipe of the CRD and DKD tables. DATA holds cifar-100-python/.
#   limbeck train vision/plain/shufflenet_v1_cifar100 --data-root DATA
#   limbeck test vision/plain/shufflenet_v1_cifar100 --data-root DATA \
#       --checkpoint work_dirs/shufflenet_v1_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller
from limbeck_vision.models import ImageCall, shufflenet_v1

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=Distiller,
    student=dict(type=shufflenet_v1, num_classes=100),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)

optim_wrapper.update(optimizer=dict(type=SGD, lr=0.01, momentum=0.9, weight_decay=5e-4))  # light models diverge at 0.05
