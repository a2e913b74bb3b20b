# ResNet-20 on folders of 32x32 images: the teacher of the other configs of this folder.
#   limbeck train vision/folder32/teacher --data-root DATA
#   limbeck test vision/folder32/teacher --data-root DATA --checkpoint work_dirs/folder32_teacher/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller
from limbeck_vision.models import ImageCall, resnet20

with read_base():
    from .._base_.folder32 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet20, num_classes=10, normalization=None),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)
train_cfg.update(max_epochs=30)
param_scheduler.update(T_max=30)

optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
work_dir = "work_dirs/folder32_teacher"
