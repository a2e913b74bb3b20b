# USKD of ResNet-18 on CIFAR-100, recipe of the paper's code. No teacher: a weak head on layer3 helps to rank classes.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/uskd/resnet18_cifar100 --data-root DATA
#   limbeck test vision/uskd/resnet18_cifar100 --data-root DATA --checkpoint work_dirs/resnet18_cifar100/student.pth
# Cross-entropy alone, for comparison: add to the first
#       --cfg-options model.matches.uskd.weight=0.0
from mmengine.config import read_base
from mmengine.optim import MultiStepLR
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, Tap
from limbeck_core.engine import EpochLoop
from limbeck_core.losses import CustomizedSoftLabelLoss
from limbeck_vision.models import ImageCall, resnet18

with read_base():
    from .._base_.cifar100 import *

train_dataloader.update(batch_size=128)

model = dict(
    type=Distiller,
    student=dict(type=resnet18, num_classes=100),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        uskd=dict(
            type=Match,
            loss=dict(
                type=CustomizedSoftLabelLoss,
                feature_channels=256,
                num_classes=100,
                target_weight=0.1,
                non_target_weight=0.1,
                weak_weight=0.1,
            ),
            student="fc",
            teacher=dict(type=Tap, path="layer3", of="student"),  # the weak head is on this side
        ),
    ),
)

# what the released config does; it also names, without effect, weight decay 5e-4 and 0.2 after epochs 60, 120 and 160
train_cfg = dict(type=EpochLoop, max_epochs=200)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type=MultiStepLR, milestones=[100, 150], gamma=0.1)
default_hooks = dict(checkpoint=dict(save_best="top1", rule="greater"))
