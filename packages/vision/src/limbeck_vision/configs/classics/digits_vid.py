# VID on digits: the student of vision/digits/plain at the same budget, taught by vision/digits/teacher.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/classics/digits_vid
#   limbeck test vision/classics/digits_vid --checkpoint work_dirs/digits_vid/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import VariationalInformationLoss
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
        vid1=dict(
            type=Match,
            loss=dict(type=VariationalInformationLoss, student_channels=4, teacher_channels=16),
            student="layer1",
            teacher="layer1",
        ),
        vid2=dict(
            type=Match,
            loss=dict(type=VariationalInformationLoss, student_channels=8, teacher_channels=32),
            student="layer2",
            teacher="layer2",
        ),
        vid3=dict(
            type=Match,
            loss=dict(type=VariationalInformationLoss, student_channels=16, teacher_channels=64),
            student="layer3",
            teacher="layer3",
        ),
    ),
)

# the rate of vision/digits/plain; not tuned for this method, nor are weights, which are those of CIFAR-100
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
