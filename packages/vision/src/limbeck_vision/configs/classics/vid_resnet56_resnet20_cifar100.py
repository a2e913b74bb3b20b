# VID from ResNet-56 to ResNet-20 on CIFAR-100: the variational bound on the information of every stage.
# The variances are trained, as the paper has it.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet56_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/classics/vid_resnet56_resnet20_cifar100 --data-root DATA
#   limbeck test vision/classics/vid_resnet56_resnet20_cifar100 --data-root DATA \
#       --checkpoint work_dirs/vid_resnet56_resnet20_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import VariationalInformationLoss
from limbeck_vision.models import ImageCall, resnet20, resnet56

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=Distiller,
    student=dict(type=resnet20, num_classes=100),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet56, num_classes=100),
        checkpoint="work_dirs/resnet56_cifar100/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        vid1=dict(
            type=Match,
            loss=dict(type=VariationalInformationLoss, student_channels=16, teacher_channels=16),
            student="layer1",
            teacher="layer1",
        ),
        vid2=dict(
            type=Match,
            loss=dict(type=VariationalInformationLoss, student_channels=32, teacher_channels=32),
            student="layer2",
            teacher="layer2",
        ),
        vid3=dict(
            type=Match,
            loss=dict(type=VariationalInformationLoss, student_channels=64, teacher_channels=64),
            student="layer3",
            teacher="layer3",
        ),
    ),
)
