# ResNet-8 of a quarter of the width on all digits: the teacher of the pruned runs, of the student's own architecture.
#   limbeck train vision/data_pruning/digits_whole
#   limbeck test vision/data_pruning/digits_whole --checkpoint work_dirs/digits_whole/student.pth
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
train_dataloader.dataset.update(label_noise=0.0)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
