# FSP, stage 2 of 2, ResNet-20 on CIFAR-100: cross-entropy from the weights of stage 1.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet56_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/classics/fsp_stage1_resnet56_resnet20_cifar100 --data-root DATA
#   limbeck train vision/classics/fsp_stage2_resnet20_cifar100 --data-root DATA
#   limbeck test vision/classics/fsp_stage2_resnet20_cifar100 --data-root DATA \
#       --checkpoint work_dirs/fsp_stage2_resnet20_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller
from limbeck_vision.models import ImageCall, resnet20

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet20, num_classes=100),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)

load_from = "work_dirs/fsp_stage1_resnet56_resnet20_cifar100/student.pth"
