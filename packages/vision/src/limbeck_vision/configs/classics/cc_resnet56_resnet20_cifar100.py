# CC from ResNet-56 to ResNet-20 on CIFAR-100: the Gaussian kernel between samples.
# The kernel form of the paper; the tables' figure is of another form, the product of neighbours, at weight 0.02.
# The teacher's side is compared as it is: an embedding of it would get no gradient.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet56_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/classics/cc_resnet56_resnet20_cifar100 --data-root DATA
#   limbeck test vision/classics/cc_resnet56_resnet20_cifar100 --data-root DATA \
#       --checkpoint work_dirs/cc_resnet56_resnet20_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.adapters import LinearAdapter
from limbeck_core.losses import CorrelationCongruenceLoss
from limbeck_vision.models import ImageCall, resnet20, resnet56

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet20, num_classes=100),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet56, num_classes=100),
        checkpoint="work_dirs/resnet56_cifar100/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        cc=dict(
            type=Match,
            loss=dict(type=CorrelationCongruenceLoss, kernel="gaussian", gamma=0.4, order=2),
            student="pool",
            teacher="pool",
            adapter=dict(type=LinearAdapter, in_features=64, out_features=64),
            weight=0.003,
        ),
    ),
)
