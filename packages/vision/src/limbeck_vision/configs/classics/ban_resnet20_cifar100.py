# BAN on CIFAR-100: a ResNet-20 born again from a ResNet-20, labels and the last generation's scores in equal parts.
# The second generation; each further one names the one before:
#   limbeck train vision/classics/ban_resnet20_cifar100 --data-root DATA --work-dir work_dirs/ban3 \
#       --cfg-options model.teacher.checkpoint=work_dirs/ban_resnet20_cifar100/student.pth
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet20_cifar100 --data-root DATA      (the first generation, once)
#   limbeck train vision/classics/ban_resnet20_cifar100 --data-root DATA
#   limbeck test vision/classics/ban_resnet20_cifar100 --data-root DATA \
#       --checkpoint work_dirs/ban_resnet20_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.models import ImageCall, resnet20

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet20, num_classes=100),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet20, num_classes=100),
        checkpoint="work_dirs/resnet20_cifar100/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        ban=dict(
            type=Match,
            loss=dict(type=KLDivergenceLoss, temperature=1.0),
            student="fc",
            teacher="fc",
            weight=1.0,
        ),
    ),
)
