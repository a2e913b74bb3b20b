"""Anchors, their coding and their assignment, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from limbeck_core.errors import ConfigError
from limbeck_detection.pointpillars.boxes import (
    KITTI_ANCHORS,
    AnchorClass,
    anchor_boxes,
    assign,
    decode_boxes,
    direction_targets,
    encode_boxes,
    headings,
    limit_period,
    nearest_bev,
)

CAR = KITTI_ANCHORS[2]


def box(x: float = 0, y: float = 0, length: float = 4, width: float = 2, yaw: float = 0) -> list[float]:
    return [x, y, -1.0, length, width, 1.5, yaw]


def test_anchors_stand_at_the_centres_of_cells() -> None:
    boxes = anchor_boxes(KITTI_ANCHORS, point_range=(0, -39.68, -3, 69.12, 39.68, 1), map_size=(248, 216))
    assert boxes.shape == (248, 216, 3, 2, 7)
    torch.testing.assert_close(boxes[0, 0, 2, 1], torch.tensor([0.16, -39.52, -1.78, 3.9, 1.6, 1.56, 1.57]))
    torch.testing.assert_close(boxes[-1, -1, 0, 0], torch.tensor([68.96, 39.52, -0.6, 0.8, 0.6, 1.73, 0]))
    torch.testing.assert_close(boxes[3, 5, 1, 0, :2], torch.tensor([5.5 * 0.32, -39.68 + 3.5 * 0.32]))


def test_coding_by_hand_and_back() -> None:
    anchor = torch.tensor([0.0, 0, -1, 3, 4, 2, 0.5])  # the diagonal is 5
    given = torch.tensor([1.0, -2, 0, 6, 4, 4, 0.25])  # its middle stands at 2, the anchor's at 0
    code = encode_boxes(given, anchor)
    torch.testing.assert_close(code, torch.tensor([0.2, -0.4, 1.0, math.log(2), 0, math.log(2), -0.25]))
    torch.testing.assert_close(decode_boxes(code, anchor), given)
    boxes = torch.rand(50, 7, dtype=torch.float64) * 4 + 0.2
    anchors = torch.rand(50, 7, dtype=torch.float64) * 4 + 0.2
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes)


def test_turned_boxes_stand_on_the_nearest_axis() -> None:
    upright, across = [-2.0, -1, 2, 1], [-1.0, -2, 1, 2]
    for yaw, expected in (
        (0, upright),
        (0.7, upright),
        (0.9, across),
        (math.pi / 2, across),
        (3.0, upright),
        (-2, across),
    ):
        torch.testing.assert_close(nearest_bev(torch.tensor(box(yaw=yaw))), torch.tensor(expected))


def test_periods() -> None:
    angles = torch.tensor([-4.0, -math.pi, 0, 3, math.pi + 0.1])
    around = limit_period(angles, 0.5, 2 * math.pi)
    assert bool((around >= -math.pi - 1e-6).all() & (around < math.pi).all())
    torch.testing.assert_close(torch.cos(around), torch.cos(angles))


def test_headings_are_recovered_from_half_turns() -> None:
    yaw = torch.linspace(-3.1, 3.1, 41, dtype=torch.float64)
    halves = direction_targets(yaw)
    assert halves[20] == 0  # forward
    assert halves[0] == halves[-1] == 1  # backward
    for turned in (yaw, yaw + math.pi, yaw - math.pi):  # what the residual says up to half a turn
        again = headings(turned, halves)
        torch.testing.assert_close(torch.stack([again.cos(), again.sin()]), torch.stack([yaw.cos(), yaw.sin()]))


def assigned(anchors: list[list[float]], boxes: list[list[float]], anchor: AnchorClass = CAR) -> list[int]:
    return assign(torch.tensor(anchors), torch.tensor(boxes).reshape(-1, 7), anchor).tolist()


def test_assignment_by_hand() -> None:
    # of 4 x 2 boxes moved along x by d the overlap is (4 - d) / (4 + d): .6 at 1, .45 at 1.517
    anchors = [box(), box(0.9), box(1.2), box(1.6), box(30)]
    assert assigned(anchors, [box()]) == [0, 0, -2, -1, -1]
    assert assigned(anchors, []) == [-1] * 5
    assert assigned(anchors, [box(30.2), box()]) == [1, 1, -2, -1, 0]


def test_a_box_takes_its_best_anchors_from_the_lower_threshold_on() -> None:
    assert assigned([box(), box(20)], [box(1.2)]) == [0, -1]  # .538: below .6, but nothing overlaps it more
    assert assigned([box(), box(2.4)], [box(1.2)]) == [0, 0]  # equally good, both
    assert assigned([box()], [box(2.0)]) == [-1]  # .333 is below .45


def test_of_two_boxes_the_later_has_the_anchor() -> None:
    assert assigned([box()], [box(0.1), box(0.5)]) == [1]


def test_wrong_anchors_are_refused() -> None:
    with pytest.raises(ConfigError, match="0 <= negative <= positive"):
        AnchorClass("Car", (4, 2, 1.5), -1, 0.4, 0.5)
    with pytest.raises(ConfigError, match="one number of rotations"):
        anchor_boxes(
            [CAR, AnchorClass("A", (1, 1, 1), 0, 0.5, 0.3, (0.0,))], point_range=(0, 0, 0, 1, 1, 1), map_size=(2, 2)
        )
