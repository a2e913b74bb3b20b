# AB on digits, stage 2 of 2: cross-entropy from the weights of stage 1.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/classics/digits_ab_stage1
#   limbeck train vision/classics/digits_ab_stage2
#   limbeck test vision/classics/digits_ab_stage2 --checkpoint work_dirs/digits_ab_stage2/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller
from limbeck_vision.models import ImageCall, resnet8_quarter

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)

load_from = "work_dirs/digits_ab_stage1/student.pth"

# the rate of vision/digits/plain; not tuned for this method, nor are weights, which are those of CIFAR-100
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
