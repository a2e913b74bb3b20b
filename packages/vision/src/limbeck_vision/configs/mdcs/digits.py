# MDCS on long-tailed digits: three experts of unlike priors, each consistent over two views.
#   limbeck train vision/mdcs/digits
#   limbeck test vision/mdcs/digits --checkpoint work_dirs/digits/student.pth
from mmengine.config import read_base
from torch.optim import SGD

from limbeck_core import Distiller, Match, Tap
from limbeck_core.engine import held_out_part
from limbeck_core.schedules import WarmUp
from limbeck_vision.data import Digits, LongTailed, small_shifts
from limbeck_vision.methods.mdcs import (
    ConfidentConsistencyLoss,
    DiverseExpertsLoss,
    PickView,
    TwoViewCall,
    TwoViews,
    expert_resnet8,
    strong_digits,
)

with read_base():
    from .._base_.digits_long_tailed import *

train_dataloader.update(
    dataset=dict(
        type=LongTailed,
        dataset=dict(
            type=held_out_part,
            dataset=dict(
                type=Digits,
                train=True,
                channels=3,
                train_size=1500,
                transform=dict(type=TwoViews, weak=dict(type=small_shifts), strong=dict(type=strong_digits)),
            ),
            count=200,
            held_out=False,
        ),
        imbalance=50.0,
    ),
)
model = dict(
    type=Distiller,
    student=dict(type=expert_resnet8, num_classes=10),
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
            weight=dict(type=WarmUp, value=0.6, length=10),
        ),
    ),
)
# rate: the best of 0.05, 0.1 and 0.2 on held-out training images; the same search was made for every arm
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True))
