# DWPose's first stage from a SimCC teacher to a heatmap student: both are read as scores along x and along y.
#   python -m limbeck_pose.rendered figures
#   limbeck train pose/figures/teacher --data-root figures
#   limbeck train pose/figures/heatmap_stage1 --data-root figures
#   limbeck test pose/figures/heatmap_stage1 --data-root figures --checkpoint work_dirs/heatmap_stage1/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.adapters import ConvAdapter
from limbeck_core.losses import SquaredDistanceLoss
from limbeck_core.schedules import Linear
from limbeck_pose.dwpose import SimCCDivergenceLoss
from limbeck_pose.figures import FigureHeatmaps, FigurePose
from limbeck_pose.heatmap import AxisScores, Heatmap, HeatmapTaskLoss

with read_base():
    from .._base_.figures import *

codec = dict(type=Heatmap, input_size=(64, 64), sigma=1.0)
train_dataloader.dataset.codec = codec
val_dataloader.dataset.codec = codec
val_evaluator.codec = codec
test_dataloader = val_dataloader
test_evaluator = val_evaluator
predictor.codec = codec
fading = dict(type=Linear, start=1.0, end=0.0, by="epoch")
model = dict(
    type=Distiller,
    student=dict(type=FigureHeatmaps, width=16),
    teacher=dict(
        type=pretrained,
        model=dict(type=FigurePose, width=48),
        checkpoint="work_dirs/teacher/student.pth",
    ),
    task_loss=dict(type=HeatmapTaskLoss),
    task_weight=1000.0,
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
            type=Match,
            loss=dict(type=SimCCDivergenceLoss),
            student="head",
            teacher="head.cls_x",
            adapter=dict(type=AxisScores, axis="x", bins=128),
            weight=fading,
        ),
        y=dict(
            type=Match,
            loss=dict(type=SimCCDivergenceLoss),
            student="head",
            teacher="head.cls_y",
            adapter=dict(type=AxisScores, axis="y", bins=128),
            weight=fading,
        ),
    ),
)
