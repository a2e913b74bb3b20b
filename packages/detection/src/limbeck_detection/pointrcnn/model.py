"""The first stage of PointRCNN: features of every point by set abstraction, a class and a box for every point.

Shi et al., PointRCNN: 3D Object Proposal Generation and Detection from Point Cloud, arXiv:1812.04244, section 3.1; Qi
et al., PointNet++, arXiv:1706.02413. The paper's second stage, which refines boxes from the points inside them, is
absent; boxes are coded without bins, as in mmdet3d.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss
from torchvision.ops import sigmoid_focal_loss

from limbeck_core.errors import ConfigError, ShapeError, TargetError
from limbeck_core.gather import all_sum, world_size
from limbeck_detection.pointpillars.boxes import KITTI_ANCHORS, AnchorClass
from limbeck_detection.pointpillars.pillars import Range
from limbeck_detection.pointrcnn.sampling import (
    PointSampling,
    SampledPoints,
    ball_query,
    farthest_points,
    interpolate_points,
    sample_points,
    take_points,
)
from limbeck_detection.rotated import points_in_boxes, rotated_nms

_MARGIN = 0.2  # metres around a box in which points are neither object nor background
_CODE = 8  # x, y, z, three sizes, cosine and sine


def _shared(channels: Sequence[int]) -> nn.Sequential:
    """1 x 1 convolutions with batch norm and ReLU, over ``(B, C, M, K)``."""
    parts: list[nn.Module] = []
    for before, after in pairwise(channels):
        parts += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*parts)


class SetAbstraction(nn.Module):
    """Choose the farthest points and encode the balls around each, at several radii.

    Args:
        in_channels: Features of a point, without its position.
        num_points: Points that are chosen.
        radii: Radius of each scale in metres.
        num_samples: Points of a ball, by scale.
        channels: Channels of the layers, by scale.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_points: int,
        radii: Sequence[float],
        num_samples: Sequence[int],
        channels: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        if not len(radii) == len(num_samples) == len(channels):
            raise ConfigError(f"each radius needs its samples and channels, got {radii}, {num_samples} and {channels}")
        self.num_points = num_points
        self.radii = tuple(radii)
        self.num_samples = tuple(num_samples)
        self.scales = nn.ModuleList(_shared((in_channels + 3, *widths)) for widths in channels)
        self.out_channels = sum(widths[-1] for widths in channels)

    def forward(self, positions: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """From ``(B, N, 3)`` and ``(B, N, C)`` to ``(B, M, 3)`` and ``(B, M, out_channels)``."""
        centers = take_points(positions, farthest_points(positions, self.num_points))
        joined = torch.cat([positions, features], 2)
        found = []
        for radius, count, layers in zip(self.radii, self.num_samples, self.scales, strict=True):
            group = take_points(joined, ball_query(positions, centers, radius=radius, count=count))
            group = torch.cat([group[..., :3] - centers[:, :, None], group[..., 3:]], -1)
            found.append(layers(group.permute(0, 3, 1, 2)).amax(3))
        return centers, torch.cat(found, 1).transpose(1, 2)


class PointBackbone(nn.Module):
    """Set abstractions, one on the points of the other.

    Args:
        in_channels: Features of a point, without its position.
        num_points: Points that each chooses.
        radii: Radii of its scales.
        num_samples: Points of a ball, by scale.
        channels: Channels of the layers of each scale of each.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        num_points: Sequence[int],
        radii: Sequence[Sequence[float]],
        num_samples: Sequence[Sequence[int]],
        channels: Sequence[Sequence[Sequence[int]]],
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        self.out_channels = [in_channels]
        for count, reach, samples, widths in zip(num_points, radii, num_samples, channels, strict=True):
            level = SetAbstraction(
                self.out_channels[-1], num_points=count, radii=reach, num_samples=samples, channels=widths
            )
            self.levels.append(level)
            self.out_channels.append(level.out_channels)

    def forward(self, points: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Positions and features of all points and of those that each level chose."""
        found = [(points[..., :3], points[..., 3:])]
        for level in self.levels:
            found.append(level(*found[-1]))
        return found


class PointNeck(nn.Module):
    """Carry features back from the fewest points to all of them, level by level.

    Args:
        in_channels: Channels at each level, all points first.
        channels: Channels of the two layers at each level, from the fewest points on.
    """

    def __init__(self, in_channels: Sequence[int], channels: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        width = in_channels[-1]
        for own, widths in zip(in_channels[-2::-1], channels, strict=True):
            self.levels.append(_shared((width + own, *widths)))
            width = widths[-1]
        self.out_channels = width

    def forward(self, found: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the features of all points, ``(B, out_channels, N)``."""
        known, features = found[-1]
        for (positions, own), layers in zip(found[-2::-1], self.levels, strict=True):
            carried = torch.cat([interpolate_points(features, known, positions), own], 2)
            features = layers(carried.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
            known = positions
        return features.transpose(1, 2)


class PointHead(nn.Module):
    """A score of each class and a box, for every point.

    Args:
        in_channels: Features of a point.
        hidden: Channels of the two layers of either branch.
        classes: Mean size of each class; their order is that of the labels.
        score: Least score of a detection.
        overlap: BEV IoU above which the lower of two detections is dropped.
        max_candidates: Points of a scene that are looked at, those with the highest scores.
        max_detections: Detections kept of a scene.
    """

    sizes: Tensor

    def __init__(
        self,
        in_channels: int,
        *,
        hidden: Sequence[int],
        classes: Sequence[AnchorClass],
        score: float = 0.1,
        overlap: float = 0.1,
        max_candidates: int = 512,
        max_detections: int = 50,
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.num_classes = len(self.classes)
        self.score = score
        self.overlap = overlap
        self.max_candidates = max_candidates
        self.max_detections = max_detections
        self.register_buffer("sizes", torch.tensor([c.size for c in self.classes]), persistent=False)
        widths = (in_channels, *hidden)
        self.cls_layers = _shared(widths).append(nn.Conv2d(widths[-1], self.num_classes, 1))
        self.reg_layers = _shared(widths).append(nn.Conv2d(widths[-1], _CODE, 1))
        nn.init.constant_(self.cls_layers[-1].bias, -4.6)  # type: ignore[arg-type]  # a probability of 0.01

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """From ``(B, C, N)`` to scores ``(B, N, classes)`` and codes of boxes ``(B, N, 8)``."""
        grown = features[..., None]
        logits, codes = self.cls_layers(grown), self.reg_layers(grown)
        return logits[..., 0].transpose(1, 2), codes[..., 0].transpose(1, 2)

    def encode(self, boxes: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """Write boxes ``(n, 7)`` as differences from points ``(n, 3)`` and the mean size of their class."""
        size = self.sizes[labels]
        middle = boxes[:, 2:3] + boxes[:, 5:6] / 2
        diagonal = torch.hypot(size[:, :1], size[:, 1:2])
        return torch.cat(
            [
                (boxes[:, :2] - points[:, :2]) / diagonal,
                (middle - points[:, 2:3]) / size[:, 2:],
                torch.log(boxes[:, 3:6] / size),
                boxes[:, 6:].cos(),
                boxes[:, 6:].sin(),
            ],
            1,
        )

    def decode(self, codes: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """Undo :meth:`encode`."""
        size = self.sizes[labels]
        diagonal = torch.hypot(size[:, :1], size[:, 1:2])
        extent = torch.exp(codes[:, 3:6]) * size
        middle = codes[:, 2:3] * size[:, 2:] + points[:, 2:3]
        yaw = torch.atan2(codes[:, 7:], codes[:, 6:7])
        return torch.cat([codes[:, :2] * diagonal + points[:, :2], middle - extent[:, 2:] / 2, extent, yaw], 1)

    def assign(self, points: Tensor, boxes: Tensor) -> Tensor:
        """Box of each point ``(N,)``: an index, -1 for the background, -2 within 0.2 m around a box."""
        found = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
        if len(boxes):
            grown = boxes + boxes.new_tensor([0, 0, -_MARGIN, *[2 * _MARGIN] * 3, 0])
            found[points_in_boxes(points, grown).any(0)] = -2
            inside = points_in_boxes(points, boxes)
            found = torch.where(inside.any(0), inside.int().argmax(0), found)
        return found


class PointRCNN(nn.Module):
    """Points to boxes without a grid: the first stage of PointRCNN.

    Args:
        sampling: How points of a scene are brought to one number.
        num_points: Points that each set abstraction chooses.
        radii: Radii of its two scales in metres.
        num_samples: Points of a ball, by scale.
        channels: Channels of the layers of each scale of each set abstraction.
        neck_channels: Channels on the way back, from the fewest points on.
        hidden: Channels of either branch of the head.
        classes: Mean sizes of the classes, in the order of the labels.
        point_features: Features of a point: x, y, z and others.
        detection: Further arguments of :class:`PointHead`.

    Raises:
        ConfigError: if the levels do not fit together.
    """

    def __init__(
        self,
        sampling: PointSampling,
        *,
        num_points: Sequence[int],
        radii: Sequence[Sequence[float]],
        num_samples: Sequence[Sequence[int]],
        channels: Sequence[Sequence[Sequence[int]]],
        neck_channels: Sequence[Sequence[int]],
        hidden: Sequence[int],
        classes: Sequence[AnchorClass] = KITTI_ANCHORS,
        point_features: int = 4,
        **detection: Any,
    ) -> None:
        super().__init__()
        levels = {len(num_points), len(radii), len(num_samples), len(channels), len(neck_channels)}
        chosen = (sampling.num_points, *num_points)
        if len(levels) != 1 or list(chosen) != sorted(chosen, reverse=True):
            raise ConfigError(
                "each level needs its number of points, radii, samples, channels and way back, and chooses from those "
                f"of the level before, got {len(levels)} different numbers of levels and points {chosen}"
            )
        self.sampling = sampling
        self.backbone = PointBackbone(
            point_features - 3, num_points=num_points, radii=radii, num_samples=num_samples, channels=channels
        )
        self.neck = PointNeck(self.backbone.out_channels, neck_channels)
        self.rpn_head = PointHead(self.neck.out_channels, hidden=hidden, classes=classes, **detection)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.rpn_head.num_classes

    @property
    def preparation(self) -> PointSampling:
        """What networks that share prepared points must have in common."""
        return self.sampling

    def prepare(self, points: Sequence[Tensor] | SampledPoints) -> SampledPoints:
        """Bring scenes to one number of points, by chance in training; sampled points are returned as they are."""
        if isinstance(points, SampledPoints):
            return points
        return sample_points(points, self.sampling, training=self.training)

    def forward(
        self, points: Sequence[Tensor] | SampledPoints, targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        """Run the network.

        Args:
            points: One tensor ``(n, 4)`` a scene: x, y, z in metres and reflectance; or :class:`SampledPoints`.
            targets: For each scene ``boxes`` ``(n, 7)`` and ``labels`` ``(n,)``.

        Returns:
            With targets ``loss/cls`` and ``loss/box``, without them scores ``(B, N, classes)`` and codes ``(B, N, 8)``.

        Raises:
            ShapeError: if points or targets have another shape.
            TargetError: if a label is no class.
        """
        sampled = self.prepare(points)
        logits, codes = self.rpn_head(self.neck(self.backbone(sampled.points)))
        return (logits, codes) if targets is None else self._loss(sampled, logits, codes, targets)

    def _loss(
        self, sampled: SampledPoints, logits: Tensor, codes: Tensor, targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        if len(targets) != len(logits):
            raise ShapeError(f"{len(logits)} scenes need as many targets, got {len(targets)}")
        focal, box, count = logits.sum() * 0.0, codes.sum() * 0.0, logits.new_zeros(())
        for scene, target in enumerate(targets):
            boxes, labels = target["boxes"].to(logits), target["labels"].to(logits.device)
            if labels.numel() and not bool(((labels >= 0) & (labels < self.num_classes)).all().item()):
                raise TargetError(f"labels of scene {scene} must lie below {self.num_classes}, got {labels.tolist()}")
            if bool(sampled.empty[scene]):
                continue
            points = sampled.points[scene, :, :3]
            found = self.rpn_head.assign(points, boxes)
            positive = found >= 0
            truth = torch.zeros_like(logits[scene])
            own = labels[found[positive]]
            truth[positive, own] = 1
            focal = focal + sigmoid_focal_loss(
                logits[scene][found != -2], truth[found != -2], alpha=0.25, gamma=2.0, reduction="sum"
            )
            goal = self.rpn_head.encode(boxes[found[positive]], points[positive], own)
            box = box + smooth_l1_loss(codes[scene][positive], goal, beta=1 / 9, reduction="sum")
            count = count + positive.sum().clamp(min=1)
        count = (all_sum(count) / world_size()).clamp(min=1)
        return {"loss/cls": focal / count, "loss/box": box / count}

    @torch.no_grad()
    def predict(self, points: Sequence[Tensor] | SampledPoints) -> list[dict[str, Tensor]]:
        """Return detections of each scene, best first: ``boxes`` ``(n, 7)``, ``scores`` and ``labels`` ``(n,)``."""
        sampled = self.prepare(points)
        head = self.rpn_head
        found = []
        for scene, (logits, codes) in enumerate(zip(*self(sampled), strict=True)):
            scores, labels = logits.sigmoid().max(1)
            scores = scores * ~sampled.empty[scene]
            top = scores.topk(min(head.max_candidates, len(scores))).indices
            top = top[scores[top] > head.score]
            boxes = head.decode(codes[top], sampled.points[scene, top, :3], labels[top])
            kept = rotated_nms(boxes, scores[top], head.overlap)[: head.max_detections]
            found.append({"boxes": boxes[kept], "scores": scores[top][kept], "labels": labels[top][kept]})
        return found


def pointrcnn(
    ratio: float = 1.0,
    *,
    sampled_points: int = PointSampling.num_points,
    point_range: Range = PointSampling.point_range,
    num_points: Sequence[int] = (4096, 1024, 256, 64),
    **options: Any,
) -> PointRCNN:
    """Build the first stage of PointRCNN for KITTI.

    Args:
        ratio: Divides all widths, which are rounded down: 2.8 and 4 are those of PointDistiller's students, called 8x
            and 16x there.
        sampled_points: Points that each scene is brought to.
        point_range: See :class:`~limbeck_detection.pointrcnn.sampling.PointSampling`; default KITTI's.
        num_points: Points that each set abstraction chooses.
        options: Further arguments of :class:`PointRCNN`.
    """

    def widths(*channels: int) -> tuple[int, ...]:
        return tuple(max(1, int(width / ratio)) for width in channels)

    return PointRCNN(
        PointSampling(sampled_points, tuple(point_range)),  # type: ignore[arg-type]
        num_points=num_points,
        **{
            "radii": ((0.1, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0)),
            "num_samples": ((16, 32),) * 4,
            "channels": (
                (widths(16, 16, 32), widths(32, 32, 64)),
                (widths(64, 64, 128), widths(64, 96, 128)),
                (widths(128, 196, 256), widths(128, 196, 256)),
                (widths(256, 256, 512), widths(256, 384, 512)),
            ),
            "neck_channels": (widths(512, 512), widths(512, 512), widths(256, 256), widths(128, 128)),
            "hidden": widths(256, 256),
            **options,
        },
    )
