# FT on digits, stage 2 of 2: the factor of the teacher's last maps.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/classics/digits_ft_stage1
#   limbeck train vision/classics/digits_ft_stage2
#   limbeck test vision/classics/digits_ft_stage2 --checkpoint work_dirs/digits_ft_stage2/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.adapters import Translator
from limbeck_core.losses import FactorTransferLoss
from limbeck_vision.methods.factor_transfer import pretrained_paraphraser
from limbeck_vision.models import ImageCall, resnet8, resnet8_quarter

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet8, num_classes=10, normalization=None),
        checkpoint="work_dirs/teacher/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        ft=dict(
            type=Match,
            loss=dict(type=FactorTransferLoss),
            student="layer3",
            teacher="layer3",
            adapter=dict(type=Translator, in_channels=16, out_channels=32),
            teacher_adapter=dict(
                type=pretrained_paraphraser,
                in_channels=64,
                out_channels=32,
                checkpoint="work_dirs/digits_ft_stage1/student.pth",
            ),
            weight=200.0,
        ),
    ),
)

# the rate of vision/digits/plain; not tuned for this method, nor are weights, which are those of CIFAR-100
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
