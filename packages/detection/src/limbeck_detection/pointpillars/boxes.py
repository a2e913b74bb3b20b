"""Boxes of a lidar: anchors, their coding and which of them a true box is assigned to.

A box is ``(x, y, z, l, w, h, yaw)``: metres and radians in the lidar's frame (x forward, y left, z up), the position at
the middle of its bottom, ``l`` along its own heading, yaw counter-clockwise from x. Lang et al., PointPillars,
arXiv:1812.05784, section 3.2; names and orders are those of mmdet3d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from limbeck_core.errors import ConfigError


@dataclass(frozen=True)
class AnchorClass:
    """The anchors of a class and how true boxes are given to them.

    Args:
        name: Of the class.
        size: Length, width and height in metres.
        bottom: Height of the bottom in metres.
        positive: Overlap (IoU) from which on an anchor stands for its best box.
        negative: Overlap below which it is background; in between it is not trained.
        rotations: Headings in radians.

    Raises:
        ConfigError: if a size is not positive or ``negative`` lies above ``positive``.
    """

    name: str
    size: tuple[float, float, float]
    bottom: float
    positive: float
    negative: float
    rotations: tuple[float, ...] = (0.0, 1.57)

    def __post_init__(self) -> None:
        """Refuse what is no anchor."""
        if min(self.size) <= 0 or not 0 <= self.negative <= self.positive <= 1 or not self.rotations:
            raise ConfigError(f"an anchor needs a positive size and 0 <= negative <= positive <= 1, got {self}")


KITTI_ANCHORS = (
    AnchorClass("Pedestrian", (0.8, 0.6, 1.73), -0.6, 0.5, 0.35),
    AnchorClass("Cyclist", (1.76, 0.6, 1.73), -0.6, 0.5, 0.35),
    AnchorClass("Car", (3.9, 1.6, 1.56), -1.78, 0.6, 0.45),
)


def anchor_boxes(classes: Sequence[AnchorClass], *, point_range: Sequence[float], map_size: tuple[int, int]) -> Tensor:
    """Place anchors at the centres of the cells of a map.

    Args:
        classes: Anchors of each class, all with one number of rotations.
        point_range: Range of the points that the map covers.
        map_size: Height (along y) and width (along x) of the map.

    Returns:
        Boxes, ``(height, width, classes, rotations, 7)``.

    Raises:
        ConfigError: if there are no classes, or they differ in the number of rotations.
    """
    if len({len(c.rotations) for c in classes}) != 1:
        raise ConfigError("anchors need at least one class, and one number of rotations for all")
    height, width = map_size
    x = torch.linspace(0, 1, 2 * width + 1)[1::2] * (point_range[3] - point_range[0]) + point_range[0]
    y = torch.linspace(0, 1, 2 * height + 1)[1::2] * (point_range[4] - point_range[1]) + point_range[1]
    boxes = torch.zeros(height, width, len(classes), len(classes[0].rotations), 7)
    boxes[..., 0] = x.view(1, -1, 1, 1)
    boxes[..., 1] = y.view(-1, 1, 1, 1)
    for index, anchor in enumerate(classes):
        boxes[:, :, index, :, 2:6] = torch.tensor([anchor.bottom, *anchor.size])
        boxes[:, :, index, :, 6] = torch.tensor(anchor.rotations)
    return boxes


def limit_period(angle: Tensor, offset: float, period: float) -> Tensor:
    """Bring angles into ``[-offset * period, (1 - offset) * period)``."""
    return angle - torch.floor(angle / period + offset) * period


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Write boxes as differences from anchors: offsets in units of the anchor, logarithms of sizes, angle.

    Args:
        boxes: ``(..., 7)``.
        anchors: The same shape.
    """
    diagonal = torch.hypot(anchors[..., 3], anchors[..., 4])
    middle = boxes[..., 2] + boxes[..., 5] / 2 - (anchors[..., 2] + anchors[..., 5] / 2)
    return torch.cat(
        [
            (boxes[..., :2] - anchors[..., :2]) / diagonal[..., None],
            (middle / anchors[..., 5])[..., None],
            torch.log(boxes[..., 3:6] / anchors[..., 3:6]),
            boxes[..., 6:] - anchors[..., 6:],
        ],
        -1,
    )


def decode_boxes(residuals: Tensor, anchors: Tensor) -> Tensor:
    """Undo :func:`encode_boxes`."""
    diagonal = torch.hypot(anchors[..., 3], anchors[..., 4])
    size = torch.exp(residuals[..., 3:6]) * anchors[..., 3:6]
    middle = residuals[..., 2] * anchors[..., 5] + anchors[..., 2] + anchors[..., 5] / 2
    return torch.cat(
        [
            residuals[..., :2] * diagonal[..., None] + anchors[..., :2],
            (middle - size[..., 2] / 2)[..., None],
            size,
            residuals[..., 6:] + anchors[..., 6:],
        ],
        -1,
    )


def nearest_bev(boxes: Tensor) -> Tensor:
    """Boxes seen from above and turned to the nearest axis, as corners ``(x1, y1, x2, y2)``, ``(..., 4)``."""
    turned = limit_period(boxes[..., 6], 0.5, math.pi).abs() > math.pi / 4
    half = torch.where(turned[..., None], boxes[..., [4, 3]], boxes[..., 3:5]) / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def direction_targets(yaw: Tensor) -> Tensor:
    """Which half-turn a heading lies in, int64: 0 from -90 to 90 degrees, 1 otherwise."""
    return (limit_period(yaw + math.pi / 2, 0.0, 2 * math.pi) / math.pi).long().clamp(0, 1)


def headings(yaw: Tensor, directions: Tensor) -> Tensor:
    """Turn an angle that is known up to half a turn into a heading in [-pi, pi).

    Args:
        yaw: Angles in radians.
        directions: 0 or 1, of the same shape, as :func:`direction_targets` gives them.
    """
    half = limit_period(yaw + math.pi / 2, 0.0, math.pi) - math.pi / 2
    return limit_period(half + math.pi * directions.to(yaw.dtype), 0.5, 2 * math.pi)


def assign(anchors: Tensor, boxes: Tensor, anchor_class: AnchorClass) -> Tensor:
    """Give each anchor of a class a true box of that class, the background, or nothing.

    The overlap is that of the boxes turned to the nearest axis. An anchor takes its best box from ``positive`` on and
    is background below ``negative``. Each box that overlaps some anchor by ``negative`` or more also takes the anchors
    that overlap it most; of two boxes that claim an anchor the later one has it.

    Args:
        anchors: ``(A, 7)``.
        boxes: True boxes, ``(n, 7)``.
        anchor_class: Holds the thresholds.

    Returns:
        Index of a box, -1 for the background, -2 for anchors that are not trained; int64 ``(A,)``.
    """
    found = torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    if not len(boxes):
        return found
    overlaps = box_iou(nearest_bev(boxes), nearest_bev(anchors))  # (n, A)
    best, index = overlaps.max(0)
    found[best >= anchor_class.negative] = -2
    positive = best >= anchor_class.positive
    found[positive] = index[positive]
    most = overlaps.amax(1)
    for number in range(len(boxes)):
        if most[number] >= anchor_class.negative:
            found[overlaps[number] == most[number]] = number
    return found
