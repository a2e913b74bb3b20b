# OFD from ResNet-56 to ResNet-20 on CIFAR-100: features before the ReLU with the teacher's margins.
# The teacher's batch norms stay in evaluation mode; the authors leave them in training mode.
# Figures: metafile.yml beside this file. DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet56_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/classics/ofd_resnet56_resnet20_cifar100 --data-root DATA
#   limbeck test vision/classics/ofd_resnet56_resnet20_cifar100 --data-root DATA \
#       --checkpoint work_dirs/ofd_resnet56_resnet20_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.adapters import OFDAdapter
from limbeck_core.losses import FeatureOverhaulLoss
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
        ofd1=dict(
            type=Match,
            loss=dict(type=FeatureOverhaulLoss),
            student="layer1.preact",
            teacher="layer1.preact",
            adapter=dict(type=OFDAdapter, in_channels=16, out_channels=16),
            extras=dict(
                bn_weight=dict(type=Tap, path="layer1.8.bn2.weight", of="teacher"),
                bn_bias=dict(type=Tap, path="layer1.8.bn2.bias", of="teacher"),
            ),
            weight=0.25e-3,
        ),
        ofd2=dict(
            type=Match,
            loss=dict(type=FeatureOverhaulLoss),
            student="layer2.preact",
            teacher="layer2.preact",
            adapter=dict(type=OFDAdapter, in_channels=32, out_channels=32),
            extras=dict(
                bn_weight=dict(type=Tap, path="layer2.8.bn2.weight", of="teacher"),
                bn_bias=dict(type=Tap, path="layer2.8.bn2.bias", of="teacher"),
            ),
            weight=0.5e-3,
        ),
        ofd3=dict(
            type=Match,
            loss=dict(type=FeatureOverhaulLoss),
            student="layer3.preact",
            teacher="layer3.preact",
            adapter=dict(type=OFDAdapter, in_channels=64, out_channels=64),
            extras=dict(
                bn_weight=dict(type=Tap, path="layer3.8.bn2.weight", of="teacher"),
                bn_bias=dict(type=Tap, path="layer3.8.bn2.bias", of="teacher"),
            ),
            weight=1e-3,
        ),
    ),
)
