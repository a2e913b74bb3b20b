# TRG from ResNet-32x4 to ResNet-8x4 on CIFAR-100.
# Weights, tokens, neighbours and temperatures are our choices: the paper's are not known to us.
# DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet32x4_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/trg/resnet32x4_resnet8x4_cifar100 --data-root DATA \
#       --cfg-options model.teacher.checkpoint=work_dirs/resnet32x4_cifar100/student.pth
#   limbeck test vision/trg/resnet32x4_resnet8x4_cifar100 --data-root DATA \
#       --checkpoint work_dirs/resnet32x4_resnet8x4_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.methods.trg import InnerContextLoss, TokenContrastLoss, TokenGraphLoss
from limbeck_vision.models import ImageCall, resnet8x4, resnet32x4

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8x4, num_classes=100),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet32x4, num_classes=100),
        checkpoint="work_dirs/resnet32x4_cifar100/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        kd=dict(type=Match, loss=dict(type=KLDivergenceLoss, temperature=4.0), student="fc", teacher="fc"),
        inner=dict(type=Match, loss=dict(type=InnerContextLoss), student="layer3", teacher="layer3"),
        local=dict(type=Match, loss=dict(type=TokenGraphLoss), student="layer3", teacher="layer3"),
        contrast=dict(
            type=Match,
            loss=dict(type=TokenContrastLoss, student_width=256, teacher_width=256),
            student="layer3",
            teacher="layer3",
            weight=0.1,
        ),
    ),
)
