# TRG and KD on long-tailed digits: relations between the patch tokens of a batch.
#   limbeck train vision/trg/digits_trg_teacher                 (once)
#   limbeck train vision/trg/digits
#   limbeck test vision/trg/digits --checkpoint work_dirs/digits/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.methods.trg import InnerContextLoss, TokenContrastLoss, TokenGraphLoss
from limbeck_vision.models import ImageCall, resnet8, resnet8_quarter

with read_base():
    from .._base_.digits_long_tailed import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet8, num_classes=10, normalization=None),
        checkpoint="work_dirs/digits_trg_teacher/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    task_weight=0.1,
    matches=dict(
        kd=dict(type=Match, loss=dict(type=KLDivergenceLoss, temperature=4.0), student="fc", teacher="fc", weight=0.9),
        inner=dict(type=Match, loss=dict(type=InnerContextLoss), student="layer3", teacher="layer3", weight=1.0),
        local=dict(type=Match, loss=dict(type=TokenGraphLoss), student="layer3", teacher="layer3", weight=1.0),
        contrast=dict(
            type=Match,
            loss=dict(type=TokenContrastLoss, student_width=16, teacher_width=64, width=32),
            student="layer3",
            teacher="layer3",
            weight=0.1,
        ),
    ),
)
# rate: the best of 0.05, 0.1 and 0.2 on held-out training images; the same search was made for every arm
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True))
