# PS-KD of PreAct ResNet-18 on CIFAR-100, recipe of the paper's code. No teacher: the student's last epoch teaches.
# The paper's figures and ours: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/ps_kd/preact_resnet18_cifar100 --data-root DATA
#   limbeck test vision/ps_kd/preact_resnet18_cifar100 --data-root DATA \
#       --checkpoint work_dirs/preact_resnet18_cifar100/student.pth
# Cross-entropy alone, for comparison: add to the first
#       --cfg-options model.task_weight=1.0 model.matches.ps_kd.weight=0.0
from mmengine.config import read_base
from mmengine.optim import MultiStepLR
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, PastSelf
from limbeck_core.engine import EpochLoop
from limbeck_core.losses import SoftTargetCrossEntropyLoss
from limbeck_core.schedules import Complement, WarmUp
from limbeck_vision.models import ImageCall, preact_resnet18

with read_base():
    from .._base_.cifar100 import *

train_dataloader.update(batch_size=128)

model = dict(
    type=Distiller,
    student=dict(
        type=preact_resnet18,
        num_classes=100,
        normalization=dict(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),  # the recipe's
    ),
    teacher=dict(past=dict(type=PastSelf, num_samples=50000, num_classes=100, logits="fc")),  # 20 MB
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    # label and past share a weight of 1: the past has 0.8 (epoch + 1) / epochs of it
    task_weight=dict(type=Complement, schedule=dict(type=WarmUp, value=0.8)),
    matches=dict(
        ps_kd=dict(
            type=Match,
            loss=dict(type=SoftTargetCrossEntropyLoss),
            student="fc",
            teacher="",
            weight=dict(type=WarmUp, value=0.8),
        ),
    ),
)

train_cfg = dict(type=EpochLoop, max_epochs=300)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
param_scheduler = dict(type=MultiStepLR, milestones=[150, 225], gamma=0.1)
default_hooks = dict(checkpoint=dict(save_best="top1", rule="greater"))
