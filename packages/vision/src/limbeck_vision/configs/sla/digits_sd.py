# SLA + SD on 200 digits: a second head learns what four views say together, and answers from one.
#   limbeck train vision/sla/digits_sd
#   limbeck test vision/sla/digits_sd --checkpoint work_dirs/digits_sd/student.pth
#   the same weights with four views averaged: --cfg-options model.student.inference=aggregated
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, Tap
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.methods.sla import AggregatedViews, LabelAugmentationLoss, LabelAugmented
from limbeck_vision.models import ImageCall, resnet8

with read_base():
    from .._base_.digits_few import *

model = dict(
    type=Distiller,
    student=dict(
        type=LabelAugmented,
        backbone=dict(type=resnet8, num_classes=10, normalization=None),
        num_classes=10,
        transformation="rotation",
        distilled_head=True,
        inference="distilled",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=LabelAugmentationLoss, views=4),
    matches=dict(
        single=dict(
            type=Match,
            loss=dict(type=CrossEntropyLoss),
            student="single",
            teacher=dict(type=Tap, path="targets", of="batch"),
        ),
        sd=dict(
            type=Match,
            loss=dict(type=KLDivergenceLoss),
            student="single",
            teacher=dict(type=Tap, path="joint", of="student"),
            teacher_adapter=dict(type=AggregatedViews, views=4),
        ),
    ),
)
# rate: the best of 0.05, 0.1 and 0.2 on held-out training images; the same search was made for every arm
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
