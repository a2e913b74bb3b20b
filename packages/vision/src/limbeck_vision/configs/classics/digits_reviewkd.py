# ReviewKD on digits: the student of vision/digits/plain at the same budget, taught by vision/digits/teacher.
# Warm-up over 2 of 20 epochs, weight 1.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/classics/digits_reviewkd
#   limbeck test vision/classics/digits_reviewkd --checkpoint work_dirs/digits_reviewkd/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.adapters import ReviewFusion
from limbeck_core.losses import HierarchicalContextLoss
from limbeck_core.schedules import WarmUp
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
        review=dict(
            type=Match,
            loss=dict(type=HierarchicalContextLoss),
            student=["layer1", "layer2", "layer3", "pool"],
            teacher=["layer1.preact", "layer2.preact", "layer3.preact", "pool"],
            adapter=dict(type=ReviewFusion, in_channels=[4, 8, 16, 16], out_channels=[16, 32, 64, 64]),
            weight=dict(type=WarmUp, value=1.0, length=2),
        ),
    ),
)

# the rate of vision/digits/plain; not tuned for this method, nor are weights, which are those of CIFAR-100
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
