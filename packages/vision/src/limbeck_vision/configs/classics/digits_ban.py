# BAN on digits: the student of vision/digits/plain born again from itself.
# The second generation; a further one names the one before by model.teacher.checkpoint.
#   limbeck train vision/digits/plain                 (the first generation, once)
#   limbeck train vision/classics/digits_ban
#   limbeck test vision/classics/digits_ban --checkpoint work_dirs/digits_ban/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.models import ImageCall, resnet8_quarter

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet8_quarter, num_classes=10, normalization=None),
        checkpoint="work_dirs/plain/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        ban=dict(
            type=Match,
            loss=dict(type=KLDivergenceLoss, temperature=1.0),
            student="fc",
            teacher="fc",
            weight=1.0,
        ),
    ),
)

# the rate of vision/digits/plain; not tuned for this method, nor are weights, which are those of CIFAR-100
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
