# SLA + SD with ResNet-32 on CIFAR-100: one pass an image in the test.
# The recipe of the authors' code: 80000 steps of 128 images, four views each. DATA holds cifar-100-python/.
#   limbeck train vision/sla/resnet32_sd_cifar100 --data-root DATA
#   limbeck test vision/sla/resnet32_sd_cifar100 --data-root DATA \
#       --checkpoint work_dirs/resnet32_sd_cifar100/student.pth
from mmengine.config import read_base
from mmengine.optim import MultiStepLR
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, Tap
from limbeck_core.engine import StepLoop
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.methods.sla import AggregatedViews, LabelAugmentationLoss, LabelAugmented
from limbeck_vision.models import ImageCall, resnet32

with read_base():
    from .._base_.cifar100 import *

train_dataloader.update(batch_size=128)
model = dict(
    type=Distiller,
    student=dict(
        type=LabelAugmented,
        backbone=dict(type=resnet32, num_classes=100, normalization=dict(mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])),
        num_classes=100,
        transformation="rotation",
        distilled_head=True,
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
train_cfg = dict(type=StepLoop, max_steps=80000, val_interval=2000)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type=MultiStepLR, milestones=[40000, 60000], gamma=0.1, by_epoch=False)
