"""Which query stands for which true box: one to one by cost, and the union over decoder layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from limbeck_core.checks import check_non_negative, explain_non_finite
from limbeck_core.errors import ShapeError, TargetError, closest
from limbeck_core.functional.precision import at_least_float32
from limbeck_detection.boxes import box_cxcywh_to_xyxy, pairwise_giou

_LOG_GUARD = 1e-8  # inside the logarithms of the class cost, so that a certain score has a finite cost

Targets = Sequence[Mapping[str, Tensor]]


class Pairs(NamedTuple):
    """Matched pairs of one image, on the CPU.

    Args:
        queries: Index of each query, int64, shape ``(n,)``.
        targets: Index of its true box, int64, shape ``(n,)``.
    """

    queries: Tensor
    targets: Tensor


class HungarianMatcher(nn.Module):
    r"""One query for each true box, at the least total cost.

    .. math:: cost = w_c \, \big(\alpha (1-p)^\gamma (-\log p) - (1-\alpha) p^\gamma (-\log(1-p))\big)
                     + w_b \, \|b - \hat b\|_1 - w_g \, GIoU(b, \hat b)

    with :math:`p` the sigmoid score of the true class. Images may have no true box, or more than there are queries;
    the best pairs are kept then.

    Args:
        class_cost: :math:`w_c`, 0 or more.
        bbox_cost: :math:`w_b`, of the absolute differences of ``cx, cy, w, h`` in units of the image.
        giou_cost: :math:`w_g`.
        alpha: Weight of the positive part of the class cost, in [0, 1].
        gamma: How much easy scores are weighed down.
        focal: ``False`` takes minus the softmax probability of the true class as the class cost instead (DETR).

    Raises:
        ValueError: if a weight is negative.

    Reference: Carion et al., End-to-End Object Detection with Transformers, arXiv:2005.12872, section 3.1, with the
        focal cost of Deformable DETR (arXiv:2010.04159).
    """

    def __init__(
        self,
        *,
        class_cost: float = 2.0,
        bbox_cost: float = 5.0,
        giou_cost: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        focal: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (
            ("class_cost", class_cost),
            ("bbox_cost", bbox_cost),
            ("giou_cost", giou_cost),
            ("alpha", alpha),
            ("gamma", gamma),
        ):
            check_non_negative(value, name)
        self.class_cost = class_cost
        self.bbox_cost = bbox_cost
        self.giou_cost = giou_cost
        self.alpha = alpha
        self.gamma = gamma
        self.focal = focal

    def forward(self, outputs: Mapping[str, Any], targets: Targets) -> list[Pairs]:
        """Match one head.

        Args:
            outputs: ``pred_logits`` ``(B, Q, C)`` and ``pred_boxes`` ``(B, Q, 4)``, centre form, in units of the image.
            targets: ``labels`` ``(n,)`` and ``boxes`` ``(n, 4)``, centre form, of each image.

        Returns: The pairs of each image, queries ascending.

        Raises:
            ShapeError, TargetError: if predictions and targets do not fit together.
            NonFiniteError: if a prediction is NaN or infinite.
        """
        return self.match([outputs], targets)[0]

    @torch.no_grad()
    def match(self, heads: Sequence[Mapping[str, Any]], targets: Targets) -> list[list[Pairs]]:
        """Match several heads of one batch; costs travel to the CPU once.

        Args:
            heads: As ``outputs`` of :meth:`forward`, one for each head.
            targets: As in :meth:`forward`.

        Returns: For each head the pairs of each image.
        """
        costs = [self.cost(head, targets) for head in heads]
        flat = [block.reshape(-1) for blocks in costs for block in blocks]
        moved = torch.cat(flat).cpu() if flat else torch.zeros(0)
        if not bool(torch.isfinite(moved).all()):
            for head in heads:
                explain_non_finite(head["pred_logits"], "pred_logits")
                explain_non_finite(head["pred_boxes"], "pred_boxes")
            for number, target in enumerate(targets):
                explain_non_finite(target["boxes"], f"boxes of target {number}")
        numbers, found, start = moved.numpy(), [], 0
        for blocks in costs:
            pairs = []
            for block in blocks:
                part = numbers[start : start + block.numel()].reshape(block.shape)
                start += block.numel()
                rows, columns = linear_sum_assignment(part)
                pairs.append(Pairs(torch.as_tensor(rows).long(), torch.as_tensor(columns).long()))
            found.append(pairs)
        return found

    @torch.no_grad()
    def cost(self, outputs: Mapping[str, Any], targets: Targets) -> list[Tensor]:
        """Cost of every query with every true box of its image, shape ``(Q, n)`` for each image."""
        logits, boxes = outputs["pred_logits"], outputs["pred_boxes"]
        check_targets(targets, logits, boxes)
        logits, boxes = at_least_float32(logits), at_least_float32(boxes)
        class_costs = self._class_cost(logits)
        return [
            self.class_cost * class_costs[image][:, target["labels"]]
            + self.bbox_cost * (boxes[image][:, None] - target["boxes"][None].to(boxes.dtype)).abs().sum(-1)
            - self.giou_cost
            * pairwise_giou(box_cxcywh_to_xyxy(boxes[image]), box_cxcywh_to_xyxy(target["boxes"].to(boxes.dtype)))
            for image, target in enumerate(targets)
        ]

    def _class_cost(self, logits: Tensor) -> Tensor:
        if not self.focal:
            return -logits.softmax(-1)
        scores = logits.sigmoid()
        positive = self.alpha * (1 - scores) ** self.gamma * -(scores + _LOG_GUARD).log()
        negative = (1 - self.alpha) * scores**self.gamma * -(1 - scores + _LOG_GUARD).log()
        return positive - negative


def check_targets(targets: Targets, logits: Tensor, boxes: Tensor) -> None:
    """Raise unless targets fit predictions of shapes ``(B, Q, C)`` and ``(B, Q, 4)``.

    The range of the labels is read only on the CPU.

    Raises:
        ShapeError: if shapes or the number of images do not fit.
        TargetError: if a field is missing, labels are no integers or lie outside the classes.
    """
    if logits.ndim != 3 or boxes.shape != (*logits.shape[:2], 4):
        raise ShapeError(
            f"pred_logits must have shape (B, Q, C) and pred_boxes (B, Q, 4), got {tuple(logits.shape)} and "
            f"{tuple(boxes.shape)}"
        )
    if len(targets) != len(logits):
        raise ShapeError(f"a batch of {len(logits)} images needs as many targets, got {len(targets)}")
    classes = logits.shape[-1]
    for number, target in enumerate(targets):
        for name in ("labels", "boxes"):
            if name not in target:
                raise TargetError(f"target {number} has no {name!r}: {closest(name, target)}")
        labels, truth = target["labels"], target["boxes"]
        if labels.ndim != 1 or truth.shape != (len(labels), 4):
            raise ShapeError(
                f"target {number} needs labels (n,) and boxes (n, 4), got {tuple(labels.shape)} and "
                f"{tuple(truth.shape)}"
            )
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise TargetError(f"labels of target {number} must be integers, got {labels.dtype}")
        if labels.device.type == "cpu" and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise TargetError(
                f"labels of target {number} lie from {int(labels.min())} to {int(labels.max())}, but the model scores "
                f"the classes 0 to {classes - 1}: give the model as many classes as the data set has"
            )


def union_of_matches(matches: Sequence[Sequence[Pairs]]) -> list[Pairs]:
    """Pairs that several heads agree on: each query with the true box that most heads gave it (D-FINE's GO-LSD).

    A true box may own several queries. Where a query was given two boxes equally often, the one with the smaller index
    is taken, so that the result does not depend on an order of sorting; the reference sorts ties at random.

    Args:
        matches: For each head the pairs of each image.

    Returns: The pairs of each image; those that most heads gave come first, ties by query and target.

    Reference: Peng et al., arXiv:2410.13842, section 4.2.
    """
    images = len(matches[0]) if matches else 0
    return [_union([head[image] for head in matches]) for image in range(images)]


def _union(found: Sequence[Pairs]) -> Pairs:
    rows = np.concatenate([np.stack([pairs.queries.numpy(), pairs.targets.numpy()], axis=1) for pairs in found])
    pairs, counts = np.unique(rows, axis=0, return_counts=True)
    pairs = pairs[np.argsort(-counts, kind="stable")]
    _, first = np.unique(pairs[:, 0], return_index=True)
    kept = pairs[np.sort(first)]
    return Pairs(torch.from_numpy(kept[:, 0].copy()), torch.from_numpy(kept[:, 1].copy()))
