# LSSKD of ResNet-18 on CIFAR-100: a branch after each of its four stages, all gone at inference. No teacher.
# The paper's code is not published and its recipe not known: this one is HSAKD's. DATA holds cifar-100-python/.
#   limbeck train vision/lsskd/resnet18_cifar100 --data-root DATA
#   limbeck test vision/lsskd/resnet18_cifar100 --data-root DATA --checkpoint work_dirs/resnet18_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_vision.methods.lsskd import LayeredDistiller
from limbeck_vision.models import resnet18

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=LayeredDistiller,
    student=dict(type=resnet18, num_classes=100),
    num_samples=50000,  # remembers 650 MB of its own predictions, in checkpoints too
    blocks=2,  # as many as the backbone has in each stage
    task_loss=dict(type=CrossEntropyLoss),
)
