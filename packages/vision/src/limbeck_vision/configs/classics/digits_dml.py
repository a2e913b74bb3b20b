# DML on digits: two students of vision/digits/plain learn together.
# Both step at once; the first one, a, is judged and exported.
#   limbeck train vision/classics/digits_dml
#   limbeck test vision/classics/digits_dml --checkpoint work_dirs/digits_dml/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, Peers, Tap
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.models import resnet8_quarter

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(
        type=Peers,
        a=dict(type=resnet8_quarter, num_classes=10),
        b=dict(type=resnet8_quarter, num_classes=10),
    ),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        a_from_b=dict(
            type=Match,
            loss=dict(type=KLDivergenceLoss, temperature=1.0),
            student="a.fc",
            teacher=dict(type=Tap, path="b.fc", of="student"),
        ),
        b_from_a=dict(
            type=Match,
            loss=dict(type=KLDivergenceLoss, temperature=1.0),
            student="b.fc",
            teacher=dict(type=Tap, path="a.fc", of="student"),
        ),
    ),
)

# the rate of vision/digits/plain; not tuned for this method, nor are weights, which are those of CIFAR-100
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
