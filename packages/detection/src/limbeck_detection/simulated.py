"""A detector for simulated lidar frames: PointPillars on a small range, with few convolutions, for a CPU."""

from __future__ import annotations

from limbeck_detection.pointpillars import AnchorClass, PointPillars, pointpillars

RANGE = (0.0, -15.36, -3.0, 30.72, 15.36, 1.0)
_GROUND = -1.73  # height of the simulated road
# lower overlaps than for KITTI, since a pillar is twice as wide
_ANCHORS = (
    AnchorClass("Pedestrian", (0.8, 0.65, 1.75), _GROUND, 0.4, 0.25),
    AnchorClass("Cyclist", (1.75, 0.6, 1.73), _GROUND, 0.4, 0.25),
    AnchorClass("Car", (3.9, 1.65, 1.55), _GROUND, 0.5, 0.35),
)


def small_pointpillars(width: int) -> PointPillars:
    """Build it: pillars of 0.32 m on 30.7 by 30.7 m, five convolutions beside the strided ones.

    Args:
        width: Features of a pillar; 16 has 165,192 parameters, 8 has 43,336.
    """
    return pointpillars(
        width,
        point_range=RANGE,
        pillar_size=(0.32, 0.32, 4.0),
        layer_nums=(1, 2, 2),
        layer_strides=(1, 2, 2),
        norm_momentum=0.1,
        classes=_ANCHORS,
    )
