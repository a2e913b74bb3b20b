# MGD on digits: the student of vision/digits/plain at the same budget, taught by vision/digits/teacher.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/classics/digits_mgd
#   limbeck test vision/classics/digits_mgd --checkpoint work_dirs/digits_mgd/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.adapters import ConvAdapter
from limbeck_core.losses import MaskedGenerativeLoss
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
        mgd=dict(
            type=Match,
            loss=dict(type=MaskedGenerativeLoss, channels=64, mask_ratio=0.15, masking="channel"),
            student="layer3",
            teacher="layer3",
            adapter=dict(type=ConvAdapter, in_channels=16, out_channels=64),
            weight=1.2e-3,
        ),
    ),
)

# the rate of vision/digits/plain; not tuned for this method, nor are weights, which are those of CIFAR-100
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
