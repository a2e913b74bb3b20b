# Three experts of unlike priors on long-tailed digits, without consistency: a control of vision/mdcs/digits.
#   limbeck train vision/mdcs/digits_diverse
#   limbeck test vision/mdcs/digits_diverse --checkpoint work_dirs/digits_diverse/student.pth
from mmengine.config import read_base
from torch.optim import SGD

from limbeck_core import Distiller, Match, Tap
from limbeck_core.engine import held_out_part
from limbeck_vision.data import Digits, LongTailed, small_shifts
from limbeck_vision.methods.mdcs import (
    DiverseExpertsLoss,
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
    ),
)
# rate: the best of 0.05, 0.1 and 0.2 on held-out training images; the same search was made for every arm
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True))
