"""The anchor head of PointPillars: scores, boxes and directions at each anchor, their losses, and boxes from them.

Lang et al., PointPillars, arXiv:1812.05784, sections 2.3 and 3.2; Lin et al., Focal Loss, arXiv:1708.02002. Names of
weights are those of mmdet3d.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss
from torchvision.ops import sigmoid_focal_loss

from limbeck_core.errors import ShapeError, TargetError
from limbeck_core.gather import all_sum, world_size
from limbeck_detection.pointpillars.boxes import (
    AnchorClass,
    anchor_boxes,
    assign,
    decode_boxes,
    direction_targets,
    encode_boxes,
    headings,
)
from limbeck_detection.rotated import rotated_nms

PRIOR = 0.01  # probability of each class at the start, arXiv:1708.02002, section 4.1
BOX_WEIGHT, DIRECTION_WEIGHT = 2.0, 0.2
BETA = 1 / 9  # where SmoothL1 turns from square to linear


class HeadOutput(NamedTuple):
    """What the head says at each cell of the map; anchors of a cell in the order class, rotation.

    Args:
        logits: Raw scores, ``(B, anchors * classes, H, W)``.
        residuals: Boxes as differences from anchors, ``(B, anchors * 7, H, W)``.
        directions: Raw scores of the two half-turns, ``(B, anchors * 2, H, W)``.
    """

    logits: Tensor
    residuals: Tensor
    directions: Tensor


class Anchor3DHead(nn.Module):
    """Three 1 x 1 convolutions over the map, and what their numbers mean.

    Args:
        in_channels: Channels of the map.
        classes: Anchors of each class; their order is that of the labels.
        point_range: Range of the points, which the map covers.
        map_size: Height and width of the map.
        max_candidates: Anchors of a scene that are looked at, those with the highest scores.
        score: Least score of a detection.
        overlap: BEV IoU from which on the lower of two detections of a class is dropped.
        max_detections: Detections kept of a scene.
    """

    anchors: Tensor

    def __init__(
        self,
        in_channels: int,
        classes: Sequence[AnchorClass],
        *,
        point_range: Sequence[float],
        map_size: tuple[int, int],
        max_candidates: int = 100,
        score: float = 0.1,
        overlap: float = 0.01,
        max_detections: int = 50,
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.num_classes = len(self.classes)
        self.max_candidates = max_candidates
        self.score = score
        self.overlap = overlap
        self.max_detections = max_detections
        boxes = anchor_boxes(self.classes, point_range=point_range, map_size=map_size)
        self.register_buffer("anchors", boxes, persistent=False)
        count = boxes.shape[2] * boxes.shape[3]
        self.conv_cls = nn.Conv2d(in_channels, count * self.num_classes, 1)
        self.conv_reg = nn.Conv2d(in_channels, count * 7, 1)
        self.conv_dir_cls = nn.Conv2d(in_channels, count * 2, 1)
        for conv in (self.conv_cls, self.conv_reg, self.conv_dir_cls):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.conv_cls.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> HeadOutput:
        """Return the raw numbers of all anchors."""
        return HeadOutput(self.conv_cls(features), self.conv_reg(features), self.conv_dir_cls(features))

    def _by_anchor(self, values: Tensor, width: int) -> Tensor:
        """``(B, H, W, classes, rotations, width)`` of a map."""
        batch, _, height, across = values.shape
        return values.permute(0, 2, 3, 1).reshape(batch, height, across, *self.anchors.shape[2:4], width)

    def loss(self, output: HeadOutput, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Compare with true boxes.

        Args:
            output: What :meth:`forward` gave.
            targets: For each scene ``boxes`` ``(n, 7)`` and ``labels`` ``(n,)``; ``n`` may be 0.

        Returns:
            ``loss/cls`` (focal), ``loss/box`` (SmoothL1, angles by their sine) and ``loss/dir`` (cross-entropy of the
            half-turn), weighted 1, 2 and 0.2, scalars. Sums over anchors are divided by the number of positive anchors,
            1 at least for each scene. Without a positive anchor ``loss/box`` and ``loss/dir`` are 0 with a gradient.

        Raises:
            ShapeError: if the number of scenes or the shape of a target does not fit.
            TargetError: if a label is no class, or a box is not finite or has no extent.
        """
        self._check(output, targets)
        logits = self._by_anchor(output.logits, self.num_classes).float()
        found = torch.stack([self._assign(target) for target in targets])  # (B, H, W, classes, rotations)
        positive, trained = found >= 0, found != -2
        own = torch.arange(self.num_classes, device=logits.device).view(-1, 1)
        truth = torch.zeros_like(logits)
        truth[positive] = nn.functional.one_hot(own.expand_as(found)[positive], self.num_classes).to(logits.dtype)
        count = positive.flatten(1).sum(1).clamp(min=1).sum().to(logits.dtype)
        count = all_sum(count) / world_size()
        focal = sigmoid_focal_loss(logits[trained], truth[trained], alpha=0.25, gamma=2.0, reduction="sum")
        scene = torch.arange(len(targets), device=logits.device).view(-1, 1, 1, 1, 1).expand_as(found)[positive]
        starts = torch.tensor([0, *(len(target["labels"]) for target in targets)], device=logits.device).cumsum(0)
        boxes = torch.cat([target["boxes"].to(logits) for target in targets])[starts[scene] + found[positive]]
        anchors = self.anchors.expand(len(targets), *self.anchors.shape)[positive].to(logits.dtype)
        wanted = encode_boxes(boxes, anchors)
        residuals = self._by_anchor(output.residuals, 7).float()[positive]
        given, wanted = _by_sine(residuals, wanted)
        box = smooth_l1_loss(given, wanted, beta=BETA, reduction="sum")
        halves = self._by_anchor(output.directions, 2).float()[positive]
        direction = cross_entropy(halves, direction_targets(boxes[:, 6]), reduction="sum")
        return {
            "loss/cls": focal / count,
            "loss/box": BOX_WEIGHT * box / count,
            "loss/dir": DIRECTION_WEIGHT * direction / count,
        }

    def _assign(self, target: Mapping[str, Tensor]) -> Tensor:
        boxes, labels = target["boxes"].to(self.anchors), target["labels"].to(self.anchors.device)
        parts = []
        for label, anchor in enumerate(self.classes):
            mine = (labels == label).nonzero().flatten()
            anchors = self.anchors[:, :, label].reshape(-1, 7)
            found = assign(anchors, boxes[mine], anchor)
            if len(mine):
                found = torch.where(found >= 0, mine[found.clamp(min=0)], found)
            parts.append(found.view(self.anchors.shape[:2] + self.anchors.shape[3:4]))
        return torch.stack(parts, 2)

    def _check(self, output: HeadOutput, targets: Sequence[Mapping[str, Tensor]]) -> None:
        if len(targets) != len(output.logits):
            raise ShapeError(f"{len(output.logits)} scenes need as many targets, got {len(targets)}")
        for scene, target in enumerate(targets):
            missing = [name for name in ("boxes", "labels") if name not in target]
            if missing:
                raise TargetError(f"the target of scene {scene} lacks {', '.join(missing)}; it has {', '.join(target)}")
            boxes, labels = target["boxes"], target["labels"]
            if boxes.shape != (len(labels), 7) or labels.ndim != 1:
                raise ShapeError(
                    f"the target of scene {scene} needs boxes (n, 7) (x, y, z of the bottom, l, w, h, yaw) and labels "
                    f"(n,), got {tuple(boxes.shape)} and {tuple(labels.shape)}"
                )
            if boxes.numel() and not bool((torch.isfinite(boxes).all() & (boxes[:, 3:6] > 0).all()).item()):
                raise TargetError(f"a box of scene {scene} is not finite or has no extent: look at its label file")
            if labels.numel() and not bool(((labels >= 0) & (labels < self.num_classes)).all().item()):
                raise TargetError(
                    f"labels of scene {scene} must lie from 0 to {self.num_classes - 1} "
                    f"({', '.join(c.name for c in self.classes)}), got {labels.tolist()}"
                )

    @torch.no_grad()
    def decode(self, output: HeadOutput) -> list[dict[str, Tensor]]:
        """Return detections of each scene, best first: ``boxes`` ``(n, 7)``, ``scores`` and ``labels`` ``(n,)``.

        Of the anchors with the highest scores those of ``score`` or less are dropped, then of each class those that
        overlap a better one; the best ``max_detections`` of all classes are kept.
        """
        logits = self._by_anchor(output.logits, self.num_classes).flatten(1, 4).float()
        residuals = self._by_anchor(output.residuals, 7).flatten(1, 4).float()
        halves = self._by_anchor(output.directions, 2).flatten(1, 4)
        anchors = self.anchors.reshape(-1, 7).float()
        found = []
        for scores, given, half in zip(logits.sigmoid(), residuals, halves, strict=True):
            top = scores.amax(1).topk(min(self.max_candidates, len(scores))).indices
            boxes = decode_boxes(given[top], anchors[top])
            boxes[:, 6] = headings(boxes[:, 6], half[top].argmax(1))
            found.append(self._best(boxes, scores[top]))
        return found

    def _best(self, boxes: Tensor, scores: Tensor) -> dict[str, Tensor]:
        kept, labels = [], []
        for label in range(self.num_classes):
            chosen = (scores[:, label] > self.score).nonzero().flatten()
            chosen = chosen[rotated_nms(boxes[chosen], scores[chosen, label], self.overlap)]
            kept.append(chosen)
            labels.append(torch.full_like(chosen, label))
        rows, classes = torch.cat(kept), torch.cat(labels)
        best = scores[rows, classes].argsort(descending=True, stable=True)[: self.max_detections]
        rows, classes = rows[best], classes[best]
        return {"boxes": boxes[rows], "scores": scores[rows, classes], "labels": classes}


def _by_sine(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Replace both angles by the two terms whose difference is the sine of their difference."""
    a, b = given[:, 6:], wanted[:, 6:]
    return (
        torch.cat([given[:, :6], a.sin() * b.cos()], 1),
        torch.cat([wanted[:, :6], a.cos() * b.sin()], 1),
    )


def as_anchor_classes(classes: Sequence[AnchorClass | Mapping[str, Any]]) -> tuple[AnchorClass, ...]:
    """Return anchor classes from themselves or their fields, for configs."""
    return tuple(c if isinstance(c, AnchorClass) else AnchorClass(**c) for c in classes)
