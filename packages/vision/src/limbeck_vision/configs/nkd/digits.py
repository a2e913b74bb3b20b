# NKD on digits: the student of vision/digits/plain, taught by vision/digits/teacher.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/nkd/digits
#   limbeck test vision/nkd/digits --checkpoint work_dirs/nkd_digits/student.pth
#   limbeck compare vision/digits/plain vision/nkd/digits
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import NormalizedKDLoss
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
        nkd=dict(
            type=Match,
            loss=dict(type=NormalizedKDLoss, temperature=1.0, non_target_weight=1.5),
            student="fc",
            teacher="fc",
        ),
    ),
)

# of 0.05, 0.1, 0.2 and 0.4 the best on 300 held-out training images, 3 seeds
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
work_dir = "work_dirs/nkd_digits"
