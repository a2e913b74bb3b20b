# FSP, stage 1 of 2, from ResNet-56 to ResNet-20 on CIFAR-100: the flow between consecutive stages.
# 30 epochs without labels; the classifier waits. Stage 2 starts from these weights.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet56_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/classics/fsp_stage1_resnet56_resnet20_cifar100 --data-root DATA
from mmengine.config import read_base

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import FSPLoss
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
        fsp=dict(
            type=Match,
            loss=dict(type=FSPLoss),
            student=["stem", "layer1", "layer2", "layer3"],
            teacher=["stem", "layer1", "layer2", "layer3"],
            weight=50.0,
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
