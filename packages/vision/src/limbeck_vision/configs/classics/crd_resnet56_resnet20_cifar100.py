# CRD from ResNet-56 to ResNet-20 on CIFAR-100: contrast of embeddings against remembered samples.
# ids index the 50000 training images.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet56_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/classics/crd_resnet56_resnet20_cifar100 --data-root DATA
#   limbeck test vision/classics/crd_resnet56_resnet20_cifar100 --data-root DATA \
#       --checkpoint work_dirs/crd_resnet56_resnet20_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import ContrastiveRepresentationLoss
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
        crd=dict(
            type=Match,
            loss=dict(
                type=ContrastiveRepresentationLoss,
                student_dim=64,
                teacher_dim=64,
                num_samples=50000,
                num_negatives=16384,
            ),
            student="pool",
            teacher="pool",
            weight=0.8,
        ),
    ),
)
