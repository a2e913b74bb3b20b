# DWPose, second stage: the trained head of RTMPose-l teaches a new head on the same frozen backbone, without labels.
#   limbeck train pose/dwpose/l_l_stage2 --data-root DATA          (after x_l_stage1)
#   limbeck test pose/dwpose/l_l_stage2 --data-root DATA --checkpoint work_dirs/l_l_stage2/student.pth
from mmengine.config import read_base

from limbeck_core import Match, pretrained
from limbeck_pose.dwpose import HeadDistiller, SimCCDivergenceLoss
from limbeck_pose.rtmpose import rtmpose_l

with read_base():
    from .._base_.coco_ubody import *
    from .._base_.epochs_60 import *

model = dict(
    type=HeadDistiller,
    teacher=dict(type=pretrained, model=dict(type=rtmpose_l), checkpoint="work_dirs/x_l_stage1/student.pth"),
    matches=dict(
        x=dict(type=Match, loss=dict(type=SimCCDivergenceLoss), student="head.cls_x", teacher="head.cls_x"),
        y=dict(type=Match, loss=dict(type=SimCCDivergenceLoss), student="head.cls_y", teacher="head.cls_y"),
    ),
)
