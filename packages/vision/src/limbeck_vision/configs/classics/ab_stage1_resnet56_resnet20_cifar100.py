# AB, stage 1 of 2, from ResNet-56 to ResNet-20 on CIFAR-100: on which side of zero each neuron responds.
# 30 epochs without labels; the classifier waits. Stage 2 starts from these weights.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet56_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/classics/ab_stage1_resnet56_resnet20_cifar100 --data-root DATA
from mmengine.config import read_base

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import ActivationBoundaryLoss
from limbeck_vision.models import ImageCall, resnet20, resnet56

with read_base():
    from .._base_.cifar100 import *
    from .._base_.init_30 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet20, num_classes=100),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet56, num_classes=100),
        checkpoint="work_dirs/resnet56_cifar100/student.pth",
    ),
    call=dict(type=ImageCall),
    matches=dict(
        ab1=dict(
            type=Match,
            loss=dict(type=ActivationBoundaryLoss, margin=1.0),
            student="layer1.preact",
            teacher="layer1.preact",
            weight=0.75e-3,
        ),
        ab2=dict(
            type=Match,
            loss=dict(type=ActivationBoundaryLoss, margin=1.0),
            student="layer2.preact",
            teacher="layer2.preact",
            weight=1.5e-3,
        ),
        ab3=dict(
            type=Match,
            loss=dict(type=ActivationBoundaryLoss, margin=1.0),
            student="layer3.preact",
            teacher="layer3.preact",
            weight=3e-3,
        ),
    ),
    freeze=("fc",),
)

val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
