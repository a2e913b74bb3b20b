"""The first stage of PointRCNN: a class and a box for every point, without a grid."""

from limbeck_detection.pointrcnn.model import PointRCNN, pointrcnn
from limbeck_detection.pointrcnn.sampling import (
    PointSampling,
    SampledPoints,
    ball_query,
    farthest_points,
    interpolate_points,
    sample_points,
)

__all__ = [
    "PointRCNN",
    "PointSampling",
    "SampledPoints",
    "ball_query",
    "farthest_points",
    "interpolate_points",
    "pointrcnn",
    "sample_points",
]
