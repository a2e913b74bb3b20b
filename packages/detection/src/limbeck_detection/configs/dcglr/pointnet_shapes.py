# PointNet on shapes that the package makes, without labels: DCGLR's distillation and its contrast.
#   limbeck train detection/dcglr/pointnet_shapes
#   limbeck test detection/dcglr/pointnet_shapes --checkpoint work_dirs/pointnet_shapes/student.pth
# Validation judges the teacher beside the student; its encoder is the one to keep, in teacher.pth.
from mmengine.config import read_base

from limbeck_core import Distiller, EMATeacher, Match
from limbeck_core.losses import DINOLoss
from limbeck_core.schedules import Cosine
from limbeck_detection.dcglr import CloudModel, NPairContrastLoss, PointNet

with read_base():
    from .._base_.shapes import *

model = dict(
    type=Distiller,
    student=dict(
        type=CloudModel, encoder=dict(type=PointNet, dim=64, widths=(32, 64)), prototypes=64, hidden=128, bottleneck=32
    ),
    teacher=dict(type=EMATeacher, momentum=dict(type=Cosine, start=0.98, end=1.0), mode="batch_stats", buffers="own"),
    teacher_view="large",
    matches=dict(
        views=dict(type=Match, loss=dict(type=DINOLoss, num_prototypes=64), student="head", teacher="head"),
        contrast=dict(
            type=Match,
            loss=dict(type=NPairContrastLoss, num_prototypes=64),
            student="head",
            teacher="head",
            weight=0.01,
        ),
    ),
)
