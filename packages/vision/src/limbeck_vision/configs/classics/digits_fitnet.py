# FitNet on digits: the student of vision/digits/plain at the same budget, taught by vision/digits/teacher.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/classics/digits_fitnet
#   limbeck test vision/classics/digits_fitnet --checkpoint work_dirs/digits_fitnet/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.adapters import HintRegressor
from limbeck_core.losses import HintLoss
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
        hint=dict(
            type=Match,
            loss=dict(type=HintLoss),
            student="layer2",
            teacher="layer2",
            adapter=dict(type=HintRegressor, in_channels=8, out_channels=32, student_size=4, teacher_size=4),
            weight=100.0,
        ),
    ),
)

# of 0.1, 0.2 and 0.4 the best on 300 held-out training images (2 seeds); weights are those of CIFAR-100
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
