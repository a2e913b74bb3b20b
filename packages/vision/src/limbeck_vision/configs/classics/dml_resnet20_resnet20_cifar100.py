# DML on CIFAR-100: two ResNet-20 learn together, each from labels and from the other.
# Both step at once, each against the other's scores of the same step; the paper lets them take turns.
# The first one, a, is judged and exported.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/classics/dml_resnet20_resnet20_cifar100 --data-root DATA
#   limbeck test vision/classics/dml_resnet20_resnet20_cifar100 --data-root DATA \
#       --checkpoint work_dirs/dml_resnet20_resnet20_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, Peers, Tap
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.models import NormalizedModel, resnet20

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=Distiller,
    student=dict(
        type=Peers,
        a=dict(type=NormalizedModel, model=dict(type=resnet20, num_classes=100)),
        b=dict(type=NormalizedModel, model=dict(type=resnet20, num_classes=100)),
    ),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        a_from_b=dict(
            type=Match,
            loss=dict(type=KLDivergenceLoss, temperature=1.0),
            student="a.model.fc",
            teacher=dict(type=Tap, path="b.model.fc", of="student"),
        ),
        b_from_a=dict(
            type=Match,
            loss=dict(type=KLDivergenceLoss, temperature=1.0),
            student="b.model.fc",
            teacher=dict(type=Tap, path="a.model.fc", of="student"),
        ),
    ),
)
