# DWPose's first stage on drawn figures: features and positions of the teacher, also of unlabelled key points.
#   python -m limbeck_pose.rendered figures
#   limbeck train pose/figures/teacher --data-root figures
#   limbeck train pose/figures/stage1 --data-root figures
#   limbeck test pose/figures/stage1 --data-root figures --checkpoint work_dirs/stage1/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.adapters import ConvAdapter
from limbeck_core.losses import SquaredDistanceLoss
from limbeck_core.schedules import Linear
from limbeck_pose.dwpose import SimCCDivergenceLoss, SimCCTaskLoss
from limbeck_pose.figures import FigurePose

with read_base():
    from .._base_.figures import *

fading = dict(type=Linear, start=0.1, end=0.0, by="epoch")
model = dict(
    type=Distiller,
    student=dict(type=FigurePose, width=16),
    teacher=dict(
        type=pretrained,
        model=dict(type=FigurePose, width=48),
        checkpoint="work_dirs/teacher/student.pth",
    ),
    task_loss=dict(type=SimCCTaskLoss),
    task_weight=64.0,
    matches=dict(
        features=dict(
            type=Match,
            loss=dict(type=SquaredDistanceLoss),
            student="backbone",
            teacher="backbone",
            adapter=dict(type=ConvAdapter, in_channels=16, out_channels=48),
            weight=dict(type=Linear, start=7e-5, end=0.0, by="epoch"),
        ),
        x=dict(
            type=Match, loss=dict(type=SimCCDivergenceLoss), student="head.cls_x", teacher="head.cls_x", weight=fading
        ),
        y=dict(
            type=Match, loss=dict(type=SimCCDivergenceLoss), student="head.cls_y", teacher="head.cls_y", weight=fading
        ),
    ),
)
