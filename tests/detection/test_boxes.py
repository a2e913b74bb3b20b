"""Boxes: the forms, IoU and generalised IoU against torchvision's, and boxes without area."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou

from limbeck_core.errors import ShapeError
from limbeck_detection.boxes import (
    box_area,
    box_cxcywh_to_xyxy,
    box_xyxy_to_cxcywh,
    paired_giou,
    paired_iou,
    pairwise_giou,
    pairwise_iou,
)


def boxes(count: int) -> Tensor:
    return box_cxcywh_to_xyxy(torch.rand(count, 4, dtype=torch.float64) * 0.5 + 0.2)


def test_the_two_forms_are_each_other_s_inverse() -> None:
    centre = torch.rand(5, 4)
    torch.testing.assert_close(box_xyxy_to_cxcywh(box_cxcywh_to_xyxy(centre)), centre)
    assert box_cxcywh_to_xyxy(torch.tensor([0.5, 0.5, 0.2, 0.4])).tolist() == pytest.approx([0.4, 0.3, 0.6, 0.7])


def test_a_negative_width_counts_as_none() -> None:
    corners = box_cxcywh_to_xyxy(torch.tensor([0.5, 0.5, -0.2, 0.4]))
    assert corners.tolist() == pytest.approx([0.5, 0.3, 0.5, 0.7])
    assert box_area(torch.tensor([0.6, 0.0, 0.4, 1.0])) == 0


def test_pairs_agree_with_torchvision() -> None:
    first, second = boxes(7), boxes(4)
    torch.testing.assert_close(pairwise_iou(first, second)[0], box_iou(first, second))
    torch.testing.assert_close(pairwise_giou(first, second), generalized_box_iou(first, second))


def test_boxes_in_order_are_the_diagonal() -> None:
    first, second = boxes(6), boxes(6)
    torch.testing.assert_close(paired_iou(first, second), pairwise_iou(first, second)[0].diagonal())
    torch.testing.assert_close(paired_giou(first, second), pairwise_giou(first, second).diagonal())


def test_boxes_without_area_have_no_overlap_and_no_gradient_that_is_not_a_number() -> None:
    point = torch.tensor([[0.5, 0.5, 0.5, 0.5]], requires_grad=True)
    total = paired_iou(point, point.detach()).sum() + paired_giou(point, point.detach()).sum()
    total.backward()
    assert total.item() == 0.0
    assert point.grad is not None
    assert torch.equal(point.grad, torch.zeros(1, 4))


def test_no_boxes() -> None:
    none = torch.zeros(0, 4)
    assert pairwise_giou(none, boxes(3).float()).shape == (0, 3)
    assert paired_giou(none, none).shape == (0,)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"boxes must hold 4 numbers a box on the last axis, got shape \(2, 5\)"):
        box_cxcywh_to_xyxy(torch.rand(2, 5))
    with pytest.raises(ShapeError, match=r"boxes2 must have shape \(N, 4\), got \(2, 3, 4\)"):
        pairwise_iou(boxes(2), torch.rand(2, 3, 4))
    with pytest.raises(ShapeError, match=r"one shape .* \(2, 4\) and \(3, 4\): for all pairs of two sets use pairwise"):
        paired_iou(boxes(2), boxes(3))
