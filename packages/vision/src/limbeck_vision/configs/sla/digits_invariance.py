# ResNet-8 on 200 digits in random quarter turns (rotation as augmentation): a control of vision/sla/digits.
#   limbeck train vision/sla/digits_invariance
#   limbeck test vision/sla/digits_invariance --checkpoint work_dirs/digits_invariance/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller
from limbeck_core.engine import held_out_part
from limbeck_vision.data import Digits
from limbeck_vision.methods.sla import RandomView
from limbeck_vision.models import ImageCall, resnet8

with read_base():
    from .._base_.digits_few import *

train_dataloader.update(
    dataset=dict(
        type=held_out_part,
        dataset=dict(type=Digits, train=True, channels=3, transform=dict(type=RandomView)),
        count=200,
        held_out=True,
    ),
)
model = dict(
    type=Distiller,
    student=dict(type=resnet8, num_classes=10, normalization=None),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)
# rate: the best of 0.05, 0.1 and 0.2 on held-out training images; the same search was made for every arm
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True))
