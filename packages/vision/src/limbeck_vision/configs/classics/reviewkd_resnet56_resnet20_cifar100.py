# ReviewKD from ResNet-56 to ResNet-20 on CIFAR-100: all stages reviewed from the deepest.
# Warm-up of the weight over 20 epochs; 0.6 is the pair's published weight.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet56_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/classics/reviewkd_resnet56_resnet20_cifar100 --data-root DATA
#   limbeck test vision/classics/reviewkd_resnet56_resnet20_cifar100 --data-root DATA \
#       --checkpoint work_dirs/reviewkd_resnet56_resnet20_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.adapters import ReviewFusion
from limbeck_core.losses import HierarchicalContextLoss
from limbeck_core.schedules import WarmUp
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
        review=dict(
            type=Match,
            loss=dict(type=HierarchicalContextLoss),
            student=["layer1", "layer2", "layer3", "pool"],
            teacher=["layer1.preact", "layer2.preact", "layer3.preact", "pool"],
            adapter=dict(type=ReviewFusion, in_channels=[16, 32, 64, 64], out_channels=[16, 32, 64, 64]),
            weight=dict(type=WarmUp, value=0.6, length=20),
        ),
    ),
)
