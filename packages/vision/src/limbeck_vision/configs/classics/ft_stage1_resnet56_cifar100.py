# FT, stage 1 of 2, ResNet-56 on CIFAR-100: the paraphraser learns to rebuild the teacher's last maps.
# 30 epochs; no student yet.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet56_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/classics/ft_stage1_resnet56_cifar100 --data-root DATA
from mmengine.config import read_base
from torch.optim import SGD

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.losses import HintLoss
from limbeck_vision.methods.factor_transfer import TeacherAutoencoder
from limbeck_vision.models import ImageCall, resnet56

with read_base():
    from .._base_.cifar100 import *
    from .._base_.init_30 import *

model = dict(
    type=Distiller,
    student=dict(
        type=TeacherAutoencoder,
        teacher=dict(
            type=pretrained,
            model=dict(type=resnet56, num_classes=100),
            checkpoint="work_dirs/resnet56_cifar100/student.pth",
        ),
        path="layer3",
        in_channels=64,
        out_channels=32,
    ),
    call=dict(type=ImageCall),
    matches=dict(
        reconstruction=dict(
            type=Match,
            loss=dict(type=HintLoss),
            student="paraphraser.decoder",
            teacher=dict(type=Tap, path="paraphraser.encoder", of="student", at="input"),
        ),
    ),
)

val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.01, momentum=0.9, weight_decay=5e-4))
