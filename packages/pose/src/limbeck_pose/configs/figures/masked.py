# The control of pose/figures/stage1: the teacher says nothing of key points without a label.
#   python -m limbeck_pose.rendered figures
#   limbeck train pose/figures/teacher --data-root figures
#   limbeck train pose/figures/masked --data-root figures
#   limbeck test pose/figures/masked --data-root figures --checkpoint work_dirs/masked/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.schedules import Linear
from limbeck_pose.dwpose import SimCCDivergenceLoss, SimCCTaskLoss
from limbeck_pose.figures import FigurePose

with read_base():
    from .._base_.figures import *

fading = dict(type=Linear, start=0.1, end=0.0, by="epoch")
labelled = dict(type=Tap, path="targets", of="batch", pick=2)
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
        x=dict(
            type=Match,
            loss=dict(type=SimCCDivergenceLoss),
            student="head.cls_x",
            teacher="head.cls_x",
            weight=fading,
            extras=dict(mask=labelled),
        ),
        y=dict(
            type=Match,
            loss=dict(type=SimCCDivergenceLoss),
            student="head.cls_y",
            teacher="head.cls_y",
            weight=fading,
            extras=dict(mask=labelled),
        ),
    ),
)
