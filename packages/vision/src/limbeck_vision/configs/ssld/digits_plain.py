# ResNet-8 of a quarter of the width on 100 labelled digits by cross-entropy: a control of vision/ssld/digits.
#   limbeck train vision/ssld/digits_plain
#   limbeck test vision/ssld/digits_plain --checkpoint work_dirs/digits_plain/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller
from limbeck_core.engine import held_out_part
from limbeck_vision.data import Digits, small_shifts
from limbeck_vision.models import ImageCall, resnet8_quarter

with read_base():
    from .._base_.digits_pool import *

train_dataloader = dict(
    dataset=dict(
        type=held_out_part,
        dataset=dict(
            type=held_out_part,
            dataset=dict(type=Digits, train=True, channels=3, transform=dict(type=small_shifts)),
            count=300,
            held_out=False,
        ),
        count=100,
        held_out=True,
        seed=1,
    ),
    batch_size=64,
)
model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)
# rate: the best of 0.05, 0.1 and 0.2 on held-out training images; the same search was made for every arm
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True))
