# ResNet-34 on CIFAR-100 by cross-entropy alone, with the schedule of its student: the teacher of vision/nkd.
#   limbeck train vision/nkd/resnet34_cifar100 --data-root DATA
#   limbeck test vision/nkd/resnet34_cifar100 --data-root DATA --checkpoint work_dirs/resnet34_cifar100/student.pth
from mmengine.config import read_base
from mmengine.optim import MultiStepLR
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller
from limbeck_core.engine import EpochLoop
from limbeck_vision.models import ImageCall, resnet34

with read_base():
    from .._base_.cifar100 import *

train_dataloader.update(batch_size=128)

model = dict(
    type=Distiller,
    student=dict(type=resnet34, num_classes=100),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)

train_cfg = dict(type=EpochLoop, max_epochs=200)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type=MultiStepLR, milestones=[100, 150], gamma=0.1)
default_hooks = dict(checkpoint=dict(save_best="top1", rule="greater"))
