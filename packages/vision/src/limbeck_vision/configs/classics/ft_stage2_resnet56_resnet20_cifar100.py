# FT, stage 2 of 2, from ResNet-56 to ResNet-20 on CIFAR-100: the factor of the teacher's last maps.
# The factors' pooled squares are compared, as in the tables; power=None in the loss compares whole factors.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet56_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/classics/ft_stage1_resnet56_cifar100 --data-root DATA
#   limbeck train vision/classics/ft_stage2_resnet56_resnet20_cifar100 --data-root DATA
#   limbeck test vision/classics/ft_stage2_resnet56_resnet20_cifar100 --data-root DATA \
#       --checkpoint work_dirs/ft_stage2_resnet56_resnet20_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.adapters import Translator
from limbeck_core.losses import FactorTransferLoss
from limbeck_vision.methods.factor_transfer import pretrained_paraphraser
from limbeck_vision.models import ImageCall, resnet20, resnet56

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet20, num_classes=100),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet56, num_classes=100),
        checkpoint="work_dirs/resnet56_cifar100/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        ft=dict(
            type=Match,
            loss=dict(type=FactorTransferLoss),
            student="layer3",
            teacher="layer3",
            adapter=dict(type=Translator, in_channels=64, out_channels=32),
            teacher_adapter=dict(
                type=pretrained_paraphraser,
                in_channels=64,
                out_channels=32,
                checkpoint="work_dirs/ft_stage1_resnet56_cifar100/student.pth",
            ),
            weight=200.0,
        ),
    ),
)
