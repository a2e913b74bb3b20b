"""Boxes: centre and corner form, areas, IoU and generalised IoU, between all pairs and between pairs in order.

Corner form is ``(x1, y1, x2, y2)``, centre form ``(cx, cy, w, h)``; the unit is the caller's, and where two sets of
boxes meet both must have the same one. Where torchvision's ``box_iou`` and ``generalized_box_iou`` give NaN (two boxes
without area), these give 0, with a gradient of 0: a detector in training predicts such boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck_core.errors import ShapeError


def _check_boxes(boxes: Tensor, name: str) -> None:
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise ShapeError(f"{name} must hold 4 numbers a box on the last axis, got shape {tuple(boxes.shape)}")


def box_cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Turn centre form into corner form; a negative width or height counts as 0.

    Args:
        boxes: ``(cx, cy, w, h)``, shape ``(..., 4)``.

    Returns: ``(x1, y1, x2, y2)``, shape ``(..., 4)``, with ``x1 <= x2`` and ``y1 <= y2``.

    Raises:
        ShapeError: if the last axis does not hold 4 numbers.
    """
    _check_boxes(boxes, "boxes")
    centre, half = boxes[..., :2], 0.5 * boxes[..., 2:].clamp(min=0.0)
    return torch.cat([centre - half, centre + half], dim=-1)


def box_xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Turn corner form into centre form; nothing is clamped, so inverted corners give a negative width or height.

    Args:
        boxes: ``(x1, y1, x2, y2)``, shape ``(..., 4)``.

    Returns: ``(cx, cy, w, h)``, shape ``(..., 4)``.

    Raises:
        ShapeError: if the last axis does not hold 4 numbers.
    """
    _check_boxes(boxes, "boxes")
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(first + second) / 2, second - first], dim=-1)


def box_area(boxes: Tensor) -> Tensor:
    """Area of boxes in corner form, shape ``(..., 4)`` to ``(...)``; inverted corners count as area 0.

    Raises:
        ShapeError: if the last axis does not hold 4 numbers.
    """
    _check_boxes(boxes, "boxes")
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0.0).prod(dim=-1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, and 0 with gradient 0 where ``whole`` is 0."""
    empty = whole <= 0
    return torch.where(empty, torch.zeros_like(part), part / torch.where(empty, torch.ones_like(whole), whole))


def _iou(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    intersection = (high - low).clamp(min=0.0).prod(dim=-1)
    union = box_area(first) + box_area(second) - intersection
    return _ratio(intersection, union), union


def _giou(first: Tensor, second: Tensor) -> Tensor:
    iou, union = _iou(first, second)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    hull = (high - low).clamp(min=0.0).prod(dim=-1)
    return iou - _ratio(hull - union, hull)


def _crossed(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    for boxes, name in ((boxes1, "boxes1"), (boxes2, "boxes2")):
        _check_boxes(boxes, name)
        if boxes.ndim != 2:
            raise ShapeError(f"{name} must have shape (N, 4), got {tuple(boxes.shape)}")
    return boxes1[:, None], boxes2[None]


def _in_order(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    _check_boxes(boxes1, "boxes1")
    if boxes1.shape != boxes2.shape:
        raise ShapeError(
            f"boxes1 and boxes2 must have one shape (..., 4), got {tuple(boxes1.shape)} and {tuple(boxes2.shape)}: "
            "for all pairs of two sets use pairwise_iou or pairwise_giou"
        )
    return boxes1, boxes2


def pairwise_iou(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union of every box of one set with every box of another.

    Args:
        boxes1: Corner form, shape ``(N, 4)``.
        boxes2: Corner form, shape ``(M, 4)``.

    Returns: The ratio in ``[0, 1]`` and the area of the union, both ``(N, M)``. Two boxes without area have ratio 0.

    Raises:
        ShapeError: if a set does not have shape ``(N, 4)``.

    >>> pairwise_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 2.0, 2.0]]))
    (tensor([[0.3333, 1.0000]]), tensor([[6., 4.]]))
    """
    return _iou(*_crossed(boxes1, boxes2))


def pairwise_giou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    r"""Generalised IoU of every box of one set with every box of another.

    .. math:: GIoU = IoU - (|H| - |U|) / |H|

    with :math:`U` the union of the two boxes and :math:`H` the smallest box around both.

    Args:
        boxes1: Corner form, shape ``(N, 4)``.
        boxes2: Corner form, shape ``(M, 4)``.

    Returns: Values in ``[-1, 1]``, shape ``(N, M)``; 0 where the hull has no area.

    Raises:
        ShapeError: if a set does not have shape ``(N, 4)``.

    Reference: Rezatofighi et al., Generalized Intersection over Union, arXiv:1902.09630, algorithm 1.

    >>> pairwise_giou(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[3.0, 0.0, 4.0, 1.0]]))
    tensor([[-0.5000]])
    """
    return _giou(*_crossed(boxes1, boxes2))


def paired_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of boxes in order, the first with the first and so on: :func:`pairwise_iou`'s diagonal in linear memory.

    Args:
        boxes1: Corner form, shape ``(..., 4)``.
        boxes2: The same shape.

    Returns: Shape ``(...)``.

    Raises:
        ShapeError: if the shapes differ or the last axis does not hold 4 numbers.
    """
    return _iou(*_in_order(boxes1, boxes2))[0]


def paired_giou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised IoU of boxes in order: :func:`pairwise_giou`'s diagonal in linear memory.

    Args:
        boxes1: Corner form, shape ``(..., 4)``.
        boxes2: The same shape.

    Returns: Shape ``(...)``.

    Raises:
        ShapeError: if the shapes differ or the last axis does not hold 4 numbers.
    """
    return _giou(*_in_order(boxes1, boxes2))
