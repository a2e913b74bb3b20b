# ResNet-8 on 900 labelled digits by cross-entropy: the teacher of vision/ssld/digits.
#   limbeck train vision/ssld/digits_ssld_teacher
#   limbeck test vision/ssld/digits_ssld_teacher --checkpoint work_dirs/digits_ssld_teacher/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller
from limbeck_core.engine import held_out_part
from limbeck_vision.data import Digits, small_shifts
from limbeck_vision.models import ImageCall, resnet8

with read_base():
    from .._base_.digits_pool import *

train_dataloader = dict(
    dataset=dict(
        type=held_out_part,
        dataset=dict(type=Digits, train=True, channels=3, transform=dict(type=small_shifts)),
        count=300,
        held_out=False,
    ),
    batch_size=64,
)
model = dict(
    type=Distiller,
    student=dict(type=resnet8, num_classes=10, normalization=None),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
