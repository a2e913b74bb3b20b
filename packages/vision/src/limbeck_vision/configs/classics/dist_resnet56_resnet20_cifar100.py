# DIST from ResNet-56 to ResNet-20 on CIFAR-100: correlations between and within classes.
# Temperature and weights as they are commonly given for CIFAR; ImageNet takes temperature 1 and weight 2.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet56_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/classics/dist_resnet56_resnet20_cifar100 --data-root DATA
#   limbeck test vision/classics/dist_resnet56_resnet20_cifar100 --data-root DATA \
#       --checkpoint work_dirs/dist_resnet56_resnet20_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import DISTLoss
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
        dist=dict(
            type=Match,
            loss=dict(type=DISTLoss, temperature=4.0, inter_weight=2.0, intra_weight=2.0),
            student="fc",
            teacher="fc",
        ),
    ),
)
