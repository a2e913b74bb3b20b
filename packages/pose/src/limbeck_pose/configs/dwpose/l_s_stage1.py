# DWPose, first stage: RTMPose-l teaches RTMPose-s by features and by positions, fading out over the run.
#   limbeck train pose/dwpose/l_s_stage1 --data-root DATA --cfg-options model.teacher.checkpoint=TEACHER.pth
#   limbeck test pose/dwpose/l_s_stage1 --data-root DATA --checkpoint work_dirs/l_s_stage1/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.adapters import ConvAdapter
from limbeck_core.losses import SquaredDistanceLoss
from limbeck_core.schedules import Linear
from limbeck_pose.dwpose import SimCCDivergenceLoss, SimCCTaskLoss
from limbeck_pose.rtmpose import rtmpose_l, rtmpose_s

with read_base():
    from .._base_.coco_ubody import *
    from .._base_.epochs_270 import *

fading = dict(type=Linear, start=0.1, end=0.0, by="epoch")
model = dict(
    type=Distiller,
    student=dict(type=rtmpose_s),
    teacher=dict(type=pretrained, model=dict(type=rtmpose_l), checkpoint="work_dirs/l_ubody/student.pth"),
    task_loss=dict(type=SimCCTaskLoss),
    task_weight=64.0,  # the recipe sums over 64 people a process: so its ratio to the matches stays at any batch size
    matches=dict(
        features=dict(
            type=Match,
            loss=dict(type=SquaredDistanceLoss),
            student="backbone",
            teacher="backbone",
            adapter=dict(type=ConvAdapter, in_channels=512, out_channels=1024),
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
