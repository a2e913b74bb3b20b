# DWPose, second stage: the trained head of RTMPose-m teaches a new head on the same frozen backbone, without labels.
#   limbeck train pose/dwpose/m_m_stage2 --data-root DATA          (after l_m_stage1)
#   limbeck test pose/dwpose/m_m_stage2 --data-root DATA --checkpoint work_dirs/m_m_stage2/student.pth
from mmengine.config import read_base

from limbeck_core import Match, pretrained
from limbeck_pose.dwpose import HeadDistiller, SimCCDivergenceLoss
from limbeck_pose.rtmpose import rtmpose_m

with read_base():
    from .._base_.coco_ubody import *
    from .._base_.epochs_60 import *

model = dict(
    type=HeadDistiller,
    teacher=dict(type=pretrained, model=dict(type=rtmpose_m), checkpoint="work_dirs/l_m_stage1/student.pth"),
    matches=dict(
        x=dict(type=Match, loss=dict(type=SimCCDivergenceLoss), student="head.cls_x", teacher="head.cls_x"),
        y=dict(type=Match, loss=dict(type=SimCCDivergenceLoss), student="head.cls_y", teacher="head.cls_y"),
    ),
)
