"""PointPillars: boxes in lidar points, with the weights' names of mmdet3d, and in the widths of compressed students."""

from limbeck_detection.pointpillars.boxes import KITTI_ANCHORS, AnchorClass
from limbeck_detection.pointpillars.calls import LidarCall
from limbeck_detection.pointpillars.head import HeadOutput
from limbeck_detection.pointpillars.model import (
    PointPillars,
    pointpillars,
    pointpillars_4x,
    pointpillars_8x,
    pointpillars_16x,
)
from limbeck_detection.pointpillars.pillars import PillarGrid, Pillars, scatter, voxelize

__all__ = [
    "KITTI_ANCHORS",
    "AnchorClass",
    "HeadOutput",
    "LidarCall",
    "PillarGrid",
    "Pillars",
    "PointPillars",
    "pointpillars",
    "pointpillars_4x",
    "pointpillars_8x",
    "pointpillars_16x",
    "scatter",
    "voxelize",
]
