"""Overlaps of boxes with a heading, against a polygon library and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from shapely import Polygon, affinity, box
from torch import Tensor

from limbeck_core.errors import ShapeError
from limbeck_detection.rotated import (
    bev_corners,
    bev_iou,
    box_iou_3d,
    paired_intersection,
    points_in_boxes,
    rotated_nms,
)


def polygon(row: Tensor) -> Polygon:
    x, y, length, width, yaw = (float(value) for value in row)
    turned = affinity.rotate(box(-length / 2, -width / 2, length / 2, width / 2), yaw, origin=(0, 0), use_radians=True)
    return affinity.translate(turned, x, y)


def shared(a: Tensor, b: Tensor) -> list[float]:
    return [polygon(first).intersection(polygon(second)).area for first, second in zip(a, b, strict=True)]


def random_boxes(count: int, seed: int, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rand = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    low = torch.tensor([-spread, -spread, 0.3, 0.3, -7.0])
    return low + rand * torch.tensor([2 * spread, 2 * spread, 4.0, 2.0, 14.0])


def test_random_pairs_share_what_polygons_share() -> None:
    a, b = random_boxes(600, 0), random_boxes(600, 1)
    expected = shared(a, b)
    assert sum(area > 0 for area in expected) > 150  # most of the test would be empty otherwise
    torch.testing.assert_close(
        paired_intersection(a, b), torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-9
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.0, 1e-15, 1e-12, 1e-9, 1e-7, 1e-5, 1e-3])
def test_nearly_equal_boxes(noise: float, seed: int) -> None:
    a = random_boxes(60, seed, spread=60.0)
    generator = torch.Generator().manual_seed(seed + 10)
    b = a + noise * torch.randn(60, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        paired_intersection(a, b), torch.tensor(shared(a, b), dtype=torch.float64), atol=1e-7, rtol=1e-7
    )


@pytest.mark.parametrize("turn", [math.pi / 2, math.pi, -math.pi, 2 * math.pi, 100 * math.pi])
def test_whole_turns_and_swapped_sides_are_the_same_rectangle(turn: float) -> None:
    a = random_boxes(40, 3)
    b = a.clone()
    b[:, 4] += turn
    if turn == math.pi / 2:
        b[:, 2:4] = b[:, [3, 2]]
    torch.testing.assert_close(paired_intersection(a, b), a[:, 2] * a[:, 3], atol=1e-8, rtol=1e-8)


BY_HAND = [
    ([0, 0, 2, 2, 0], [0, 0, 2, 2, math.pi / 4], 8 * (math.sqrt(2) - 1)),  # a regular octagon
    ([0, 0, 4, 2, 0], [1, 0, 4, 2, 0], 6.0),  # moved along one side: two edges coincide
    ([0, 0, 4, 2, 0], [4, 0, 4, 2, 0], 0.0),  # one edge touches
    ([0, 0, 4, 2, 0], [4, 2, 4, 2, 0], 0.0),  # one corner touches
    ([0, 0, 4, 2, 0], [0, 0, 1, 1, 0.3], 1.0),  # one inside the other
    ([0, 0, 4, 4, 0], [0, 0, 2, 2, math.pi / 4], 4.0),
    ([0, 0, 4, 2, 0], [1.5, 0.5, 1, 1, 0], 1.0),  # inside, with two edges in common
    ([0, 0, 2, 2, 0], [0, 0, math.sqrt(8), math.sqrt(8), math.pi / 4], 4.0),  # all four corners on the other's edges
    ([0, 0, 10, 0.1, 0], [0, 0, 10, 0.1, math.pi / 2], 0.01),  # a cross of thin boxes
    ([0, 0, 4, 0, 0], [0, 0, 4, 2, 0], 0.0),  # no width
    ([0, 0, 0, 0, 0], [0, 0, 0, 0, 0], 0.0),  # a point
    ([0, 0, -4, 2, 0], [0, 0, 4, 2, 0], 0.0),  # a negative length has no area
    ([1e4, -1e4, 4, 2, 0.7], [1e4, -1e4, 4, 2, 0.7], 8.0),  # far from the origin
    ([0, 0, 1e-3, 1e-3, 0.2], [0, 0, 1e3, 1e3, 0.9], 1e-6),  # a speck in a field
]


@pytest.mark.parametrize(("first", "second", "expected"), BY_HAND)
def test_by_hand(first: list[float], second: list[float], expected: float) -> None:
    a, b = torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)
    for one, other in ((a, b), (b, a)):
        assert float(paired_intersection(one, other)) == pytest.approx(expected, abs=1e-9, rel=1e-6)


def test_iou_of_all_pairs_in_float32() -> None:
    a, b = random_boxes(30, 4).float(), random_boxes(20, 5).float()
    expected = np.array(
        [[polygon(x).intersection(polygon(y)).area / polygon(x).union(polygon(y)).area for y in b] for x in a]
    )
    torch.testing.assert_close(bev_iou(a, b), torch.from_numpy(expected), atol=1e-6, rtol=1e-5)
    assert bev_iou(a[:0], b).shape == (0, 20)


def test_iou_in_space_counts_heights() -> None:
    a = torch.tensor([[0.0, 0, 0, 4, 2, 2, 0]])
    b = torch.tensor(
        [[0.0, 0, 1, 4, 2, 2, 0], [0, 0, 2, 4, 2, 2, 0], [1, 0, -1, 4, 2, 4, 0], [0, 0, 0, 4, 2, 2, math.pi]]
    )
    # 8 of 24; touching; 6 x 2 of 16 + 32 - 12; the same
    torch.testing.assert_close(box_iou_3d(a, b), torch.tensor([[1 / 3, 0, 12 / 36, 1.0]], dtype=torch.float64))


def test_equal_boxes_have_an_iou_of_one_and_the_matrix_is_symmetric() -> None:
    a = random_boxes(25, 6)
    overlaps = bev_iou(a, a)
    torch.testing.assert_close(overlaps.diagonal(), torch.ones(25, dtype=torch.float64))
    torch.testing.assert_close(overlaps, overlaps.T)
    assert float(overlaps.max()) <= 1 + 1e-9


def test_corners_go_round_counter_clockwise() -> None:
    corners = bev_corners(torch.tensor([[1.0, 2, 4, 2, math.pi / 2]]))[0]
    torch.testing.assert_close(corners, torch.tensor([[0.0, 4], [0, 0], [2, 0], [2, 4]]), atol=1e-6, rtol=0)


def greedy(boxes: Tensor, scores: Tensor, overlap: float) -> list[int]:
    """One box after the other, with polygons."""
    left = sorted(range(len(scores)), key=lambda i: -float(scores[i]))
    kept: list[int] = []
    while left:
        best, *rest = left
        kept.append(best)
        mine = polygon(boxes[best])
        left = [
            i for i in rest if mine.intersection(polygon(boxes[i])).area / mine.union(polygon(boxes[i])).area <= overlap
        ]
    return kept


@pytest.mark.parametrize("overlap", [0.01, 0.3, 0.7])
def test_suppression_keeps_what_a_plain_loop_keeps(overlap: float) -> None:
    boxes = random_boxes(60, 7)
    scores = torch.rand(60, generator=torch.Generator().manual_seed(8))
    assert rotated_nms(boxes, scores, overlap).tolist() == greedy(boxes, scores, overlap)


def test_suppression_of_nothing_and_of_ties() -> None:
    assert rotated_nms(torch.zeros(0, 7), torch.zeros(0), 0.5).tolist() == []
    same = torch.tensor([[0.0, 0, 0, 4, 2, 2, 0]]).expand(3, 7)
    assert rotated_nms(same, torch.ones(3), 0.5).tolist() == [0]


def test_points_in_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 0, 4, 2, 2, 0], [10, 0, 0, 4, 2, 2, math.pi / 2]])
    points = torch.tensor([[1.9, 0.9, 0.1], [1.9, 1.1, 0.1], [10, 1.9, 1.9], [11.9, 0, 1], [0, 0, 2.1], [2, 1, 2]])
    assert points_in_boxes(points, boxes).int().tolist() == [[1, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]]
    assert points_in_boxes(points, boxes[:0]).shape == (0, 6)


def test_errors_say_what_was_given() -> None:
    with pytest.raises(ShapeError, match=r"boxes must be \(n, 5\).*got \(2, 4\)"):
        bev_iou(torch.zeros(2, 4), torch.zeros(2, 5))
    with pytest.raises(ShapeError, match=r"in space must be \(n, 7\).*got \(2, 5\)"):
        box_iou_3d(torch.zeros(2, 5), torch.zeros(2, 7))
    with pytest.raises(ShapeError, match="got 2 and 3"):
        paired_intersection(torch.zeros(2, 5), torch.zeros(3, 5))
    with pytest.raises(ShapeError, match="2 boxes need as many scores"):
        rotated_nms(torch.zeros(2, 5), torch.zeros(3), 0.5)
