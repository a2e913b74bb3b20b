# KD from VGG-13 to VGG-8 on CIFAR-100, recipe of the CRD and DKD tables.
# The tables' figures and ours: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/vgg13_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/kd/vgg13_vgg8_cifar100 --data-root DATA \
#       --cfg-options model.teacher.checkpoint=work_dirs/vgg13_cifar100/student.pth
#   limbeck test vision/kd/vgg13_vgg8_cifar100 --data-root DATA \
#       --checkpoint work_dirs/vgg13_vgg8_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.models import ImageCall, vgg8, vgg13

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=Distiller,
    student=dict(type=vgg8, num_classes=100),
    teacher=dict(
        type=pretrained,
        model=dict(type=vgg13, num_classes=100),
        checkpoint="work_dirs/vgg13_cifar100/student.pth",
    ),
    call=dict(type=ImageCall),  # each model normalises the images for itself
    task_loss=dict(type=CrossEntropyLoss),
    task_weight=0.1,
    matches=dict(
        kd=dict(type=Match, loss=dict(type=KLDivergenceLoss, temperature=4.0), student="fc", teacher="fc", weight=0.9),
    ),
)
