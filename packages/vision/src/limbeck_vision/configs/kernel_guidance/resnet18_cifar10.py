# Guided self-distillation of ResNet-18 on CIFAR-10, steps 2 to 5: labels and the network before, mixed.
# DATA holds cifar-10-batches-py/. Each step starts from scratch. Crops and flips are our choice.
#   limbeck train vision/kernel_guidance/resnet18_cifar10_first --data-root DATA
#   limbeck train vision/kernel_guidance/resnet18_cifar10 --data-root DATA
#   python -m limbeck_vision.methods.kernel_guidance.procedure vision/kernel_guidance/resnet18_cifar10_first \
#       vision/kernel_guidance/resnet18_cifar10 --steps 5 --data-root DATA      (all of it, with estimated weights)
#   limbeck test vision/kernel_guidance/resnet18_cifar10 --data-root DATA \
#       --checkpoint work_dirs/resnet18_cifar10/student.pth
from mmengine.config import read_base
from torch.optim import Adam

from limbeck_core import Match, pretrained
from limbeck_core.engine import EpochLoop
from limbeck_vision.methods.kernel_guidance import GuidedDistiller, LabelMSELoss, ProbabilityMSELoss
from limbeck_vision.models import CIFAR10_NORMALIZATION, ImageCall, resnet18

with read_base():
    from .._base_.cifar10 import *

model = dict(
    type=GuidedDistiller,
    student=dict(type=resnet18, num_classes=10, normalization=CIFAR10_NORMALIZATION),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet18, num_classes=10, normalization=CIFAR10_NORMALIZATION),
        checkpoint="work_dirs/resnet18_cifar10_first/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=LabelMSELoss),
    task_weight=0.35,
    matches=dict(
        guidance=dict(type=Match, loss=dict(type=ProbabilityMSELoss), student="fc", teacher="fc", weight=0.65),
    ),
    norm_weight=1e-4,
)
train_dataloader.update(batch_size=16)
train_cfg = dict(type=EpochLoop, max_epochs=75)
optim_wrapper = dict(optimizer=dict(type=Adam, lr=1e-4))
