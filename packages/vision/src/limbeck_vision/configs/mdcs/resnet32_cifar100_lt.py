# MDCS with ResNet-32 on CIFAR-100-LT of imbalance 100, the recipe of the authors' code over 400 epochs.
# Reported: 56.1 % (all experts). DATA holds cifar-100-python/.
#   limbeck train vision/mdcs/resnet32_cifar100_lt --data-root DATA
#   limbeck test vision/mdcs/resnet32_cifar100_lt --data-root DATA \
#       --checkpoint work_dirs/resnet32_cifar100_lt/student.pth
from mmengine.config import read_base
from mmengine.optim import LinearLR, MultiStepLR
from torch.optim import SGD

from limbeck_core import Distiller, Match, Tap
from limbeck_core.engine import EpochLoop
from limbeck_core.schedules import WarmUp
from limbeck_vision.data import CIFAR100, LongTailed
from limbeck_vision.methods.mdcs import (
    ConfidentConsistencyLoss,
    DiverseExpertsLoss,
    PickView,
    TwoViewCall,
    TwoViews,
    expert_resnet32,
    strong_cifar,
    weak_cifar,
)

with read_base():
    from .._base_.cifar100_long_tailed import *

train_dataloader.update(
    dataset=dict(
        type=LongTailed,
        dataset=dict(
            type=CIFAR100,
            root=".",
            train=True,
            transform=dict(type=TwoViews, weak=dict(type=weak_cifar), strong=dict(type=strong_cifar)),
        ),
        imbalance=100.0,
    ),
)
model = dict(
    type=Distiller,
    student=dict(
        type=expert_resnet32,
        num_classes=100,
        normalization=dict(mean=[0.4914, 0.4822, 0.4465], std=[0.2023, 0.1994, 0.2010]),
    ),
    call=dict(type=TwoViewCall),
    matches=dict(
        diversity=dict(
            type=Match,
            loss=dict(type=DiverseExpertsLoss, class_counts=class_counts),
            student="experts",
            teacher=dict(type=Tap, path="targets", of="batch"),
        ),
        consistency=dict(
            type=Match,
            loss=dict(type=ConfidentConsistencyLoss, class_counts=class_counts),
            student="experts",
            teacher=dict(type=Tap, path="experts", of="student"),
            adapter=dict(type=PickView, index=1),
            teacher_adapter=dict(type=PickView, index=0),
            weight=dict(type=WarmUp, value=0.6, length=20),
        ),
    ),
)
train_cfg = dict(type=EpochLoop, max_epochs=400, val_interval=10)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
param_scheduler = [
    dict(type=LinearLR, start_factor=0.05, by_epoch=True, begin=0, end=20),
    dict(type=MultiStepLR, milestones=[200, 320, 380], gamma=0.1),
]
