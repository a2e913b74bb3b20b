# CC on digits: the student of vision/digits/plain at the same budget, taught by vision/digits/teacher.
# The teacher's side is compared as it is: an embedding of it would get no gradient.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/classics/digits_cc
#   limbeck test vision/classics/digits_cc --checkpoint work_dirs/digits_cc/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.adapters import LinearAdapter
from limbeck_core.losses import CorrelationCongruenceLoss
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
        cc=dict(
            type=Match,
            loss=dict(type=CorrelationCongruenceLoss, kernel="gaussian", gamma=0.4, order=2),
            student="pool",
            teacher="pool",
            adapter=dict(type=LinearAdapter, in_features=16, out_features=64),
            weight=0.003,
        ),
    ),
)

# the rate of vision/digits/plain; not tuned for this method, nor are weights, which are those of CIFAR-100
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
