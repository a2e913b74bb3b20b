# FT on digits, stage 1 of 2: the paraphraser learns to rebuild the teacher's last maps.
# 5 epochs; no student yet.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/classics/digits_ft_stage1
from mmengine.config import read_base
from torch.optim import SGD

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.engine import EpochLoop
from limbeck_core.losses import HintLoss
from limbeck_vision.methods.factor_transfer import TeacherAutoencoder
from limbeck_vision.models import ImageCall, resnet8

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(
        type=TeacherAutoencoder,
        teacher=dict(
            type=pretrained,
            model=dict(type=resnet8, num_classes=10, normalization=None),
            checkpoint="work_dirs/teacher/student.pth",
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
train_cfg = dict(type=EpochLoop, max_epochs=5)
param_scheduler = None

optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=5e-4))
