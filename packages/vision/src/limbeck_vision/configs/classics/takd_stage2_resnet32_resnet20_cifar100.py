# TAKD, stage 2 of 2, on CIFAR-100: the assistant, a ResNet-32, teaches ResNet-20.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet56_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/classics/takd_stage1_resnet56_resnet32_cifar100 --data-root DATA
#   limbeck train vision/classics/takd_stage2_resnet32_resnet20_cifar100 --data-root DATA
#   limbeck test vision/classics/takd_stage2_resnet32_resnet20_cifar100 --data-root DATA \
#       --checkpoint work_dirs/takd_stage2_resnet32_resnet20_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.models import ImageCall, resnet20, resnet32

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet20, num_classes=100),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet32, num_classes=100),
        checkpoint="work_dirs/takd_stage1_resnet56_resnet32_cifar100/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    task_weight=0.1,
    matches=dict(
        kd=dict(
            type=Match,
            loss=dict(type=KLDivergenceLoss, temperature=4.0),
            student="fc",
            teacher="fc",
            weight=0.9,
        ),
    ),
)
