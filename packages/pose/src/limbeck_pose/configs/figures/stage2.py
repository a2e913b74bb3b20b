# DWPose's second stage on drawn figures: the trained head teaches a new one, without labels.
#   python -m limbeck_pose.rendered figures
#   limbeck train pose/figures/stage2 --data-root figures        (after pose/figures/stage1)
#   limbeck test pose/figures/stage2 --data-root figures --checkpoint work_dirs/stage2/student.pth
from mmengine.config import read_base

from limbeck_core import Match, pretrained
from limbeck_pose.dwpose import HeadDistiller, SimCCDivergenceLoss
from limbeck_pose.figures import FigurePose

with read_base():
    from .._base_.figures import *

model = dict(
    type=HeadDistiller,
    teacher=dict(
        type=pretrained,
        model=dict(type=FigurePose, width=16),
        checkpoint="work_dirs/stage1/student.pth",
    ),
    matches=dict(
        x=dict(type=Match, loss=dict(type=SimCCDivergenceLoss), student="head.cls_x", teacher="head.cls_x"),
        y=dict(type=Match, loss=dict(type=SimCCDivergenceLoss), student="head.cls_y", teacher="head.cls_y"),
    ),
)
