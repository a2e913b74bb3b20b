# Guided self-distillation of ResNet-18 on CIFAR-10, step 1: labels alone, with the released code's Adam.
# DATA holds cifar-10-batches-py/. Crops and flips are our choice; the augmentation was not established.
#   limbeck train vision/kernel_guidance/resnet18_cifar10_first --data-root DATA
#   limbeck test vision/kernel_guidance/resnet18_cifar10_first --data-root DATA \
#       --checkpoint work_dirs/resnet18_cifar10_first/student.pth
from mmengine.config import read_base
from torch.optim import Adam

from limbeck_core.engine import EpochLoop
from limbeck_vision.methods.kernel_guidance import GuidedDistiller, LabelMSELoss
from limbeck_vision.models import CIFAR10_NORMALIZATION, ImageCall, resnet18

with read_base():
    from .._base_.cifar10 import *

model = dict(
    type=GuidedDistiller,
    student=dict(type=resnet18, num_classes=10, normalization=CIFAR10_NORMALIZATION),
    call=dict(type=ImageCall),
    task_loss=dict(type=LabelMSELoss),
    norm_weight=1e-4,
)
train_dataloader.update(batch_size=16)
train_cfg = dict(type=EpochLoop, max_epochs=75)
optim_wrapper = dict(optimizer=dict(type=Adam, lr=1e-4))
