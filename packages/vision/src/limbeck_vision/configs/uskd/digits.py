# USKD on digits: the student of vision/digits/plain with a weak head after its second stage.
#   limbeck train vision/uskd/digits
#   limbeck test vision/uskd/digits --checkpoint work_dirs/uskd_digits/student.pth
#   limbeck compare vision/digits/plain vision/uskd/digits
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, Tap
from limbeck_core.losses import CustomizedSoftLabelLoss
from limbeck_vision.models import ImageCall, resnet8_quarter

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        uskd=dict(
            type=Match,
            loss=dict(
                type=CustomizedSoftLabelLoss,
                feature_channels=8,
                num_classes=10,
                target_weight=0.1,
                non_target_weight=0.1,
                weak_weight=0.1,
            ),
            student="fc",
            teacher=dict(type=Tap, path="layer2", of="student"),
        ),
    ),
)

# of 0.05, 0.1, 0.2 and 0.4 the best on 300 held-out training images, 3 seeds
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
work_dir = "work_dirs/uskd_digits"
