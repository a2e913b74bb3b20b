# NKD from ResNet-34 to ResNet-18 on CIFAR-100, recipe of the paper's code.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/nkd/resnet34_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/nkd/resnet34_resnet18_cifar100 --data-root DATA \
#       --cfg-options model.teacher.checkpoint=work_dirs/resnet34_cifar100/student.pth
#   limbeck test vision/nkd/resnet34_resnet18_cifar100 --data-root DATA \
#       --checkpoint work_dirs/resnet34_resnet18_cifar100/student.pth
from mmengine.config import read_base
from mmengine.optim import MultiStepLR
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.engine import EpochLoop
from limbeck_core.losses import NormalizedKDLoss
from limbeck_vision.models import ImageCall, resnet18, resnet34

with read_base():
    from .._base_.cifar100 import *

train_dataloader.update(batch_size=128)

model = dict(
    type=Distiller,
    student=dict(type=resnet18, num_classes=100),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet34, num_classes=100),
        checkpoint="work_dirs/resnet34_cifar100/student.pth",
    ),
    call=dict(type=ImageCall),  # each model normalises the images for itself
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        nkd=dict(
            type=Match,
            loss=dict(type=NormalizedKDLoss, temperature=3.0, non_target_weight=3.5),
            student="fc",
            teacher="fc",
        ),
    ),
)

train_cfg = dict(type=EpochLoop, max_epochs=200)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type=MultiStepLR, milestones=[100, 150], gamma=0.1)
default_hooks = dict(checkpoint=dict(save_best="top1", rule="greater"))
