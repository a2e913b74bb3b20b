# OFD on digits: the student of vision/digits/plain at the same budget, taught by vision/digits/teacher.
# The teacher's batch norms stay in evaluation mode; the authors leave them in training mode.
#   limbeck train vision/digits/teacher                 (once)
#   limbeck train vision/classics/digits_ofd
#   limbeck test vision/classics/digits_ofd --checkpoint work_dirs/digits_ofd/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.adapters import OFDAdapter
from limbeck_core.losses import FeatureOverhaulLoss
from limbeck_vision.models import ImageCall, resnet8, resnet8_quarter

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet8, num_classes=10, normalization=None),
        checkpoint="work_dirs/teacher/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        ofd1=dict(
            type=Match,
            loss=dict(type=FeatureOverhaulLoss),
            student="layer1.preact",
            teacher="layer1.preact",
            adapter=dict(type=OFDAdapter, in_channels=4, out_channels=16),
            extras=dict(
                bn_weight=dict(type=Tap, path="layer1.0.bn2.weight", of="teacher"),
                bn_bias=dict(type=Tap, path="layer1.0.bn2.bias", of="teacher"),
            ),
            weight=0.25e-3,
        ),
        ofd2=dict(
            type=Match,
            loss=dict(type=FeatureOverhaulLoss),
            student="layer2.preact",
            teacher="layer2.preact",
            adapter=dict(type=OFDAdapter, in_channels=8, out_channels=32),
            extras=dict(
                bn_weight=dict(type=Tap, path="layer2.0.bn2.weight", of="teacher"),
                bn_bias=dict(type=Tap, path="layer2.0.bn2.bias", of="teacher"),
            ),
            weight=0.5e-3,
        ),
        ofd3=dict(
            type=Match,
            loss=dict(type=FeatureOverhaulLoss),
            student="layer3.preact",
            teacher="layer3.preact",
            adapter=dict(type=OFDAdapter, in_channels=16, out_channels=64),
            extras=dict(
                bn_weight=dict(type=Tap, path="layer3.0.bn2.weight", of="teacher"),
                bn_bias=dict(type=Tap, path="layer3.0.bn2.bias", of="teacher"),
            ),
            weight=1e-3,
        ),
    ),
)

# the rate of vision/digits/plain; not tuned for this method, nor are weights, which are those of CIFAR-100
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
