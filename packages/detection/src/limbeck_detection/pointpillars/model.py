"""PointPillars: a fast detector of boxes in lidar points, in the widths of PointDistiller's teachers and students.

Lang et al., PointPillars: Fast Encoders for Object Detection from Point Clouds, arXiv:1812.05784; widths of students
from Zhang et al., PointDistiller, arXiv:2205.11098. Names and shapes of weights are those of mmdet3d, so that its
checkpoints load unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from limbeck_core.checks import check_between
from limbeck_core.errors import ConfigError, ShapeError
from limbeck_detection.pointpillars.backbone import SECOND, SECONDFPN
from limbeck_detection.pointpillars.boxes import KITTI_ANCHORS, AnchorClass
from limbeck_detection.pointpillars.encoder import PillarFeatureNet, PointPillarsScatter
from limbeck_detection.pointpillars.head import Anchor3DHead, HeadOutput, as_anchor_classes
from limbeck_detection.pointpillars.pillars import PillarGrid, Pillars, Range, voxelize

Points = Sequence[Tensor] | Pillars


class PointPillars(nn.Module):
    """Points to boxes: pillars, a feature net, a map, convolutions, a head on anchors.

    Args:
        grid: Where pillars stand.
        pillar_channels: Features of a pillar.
        channels: Channels of each block of the backbone.
        neck_channels: Channels that each block's map is brought to before they are joined.
        layer_nums: Convolutions of each block after its first.
        layer_strides: Stride of each block's first convolution; maps are brought back to the first block's size.
        classes: Anchors of each class, in the order of the labels; or their fields.
        point_features: Features of a point: x, y, z and others (reflectance).
        legacy: See :class:`~limbeck_detection.pointpillars.encoder.PillarFeatureNet`.
        norm_momentum: Share of a step's statistics in the running ones of batch norm. The original 0.01 needs some
            thousand steps to settle; a run of a few hundred is judged by stale statistics unless this is larger.
        detection: Further arguments of :class:`~limbeck_detection.pointpillars.head.Anchor3DHead`.

    Raises:
        ConfigError: if the grid is no whole number of the backbone's strides.
    """

    def __init__(
        self,
        grid: PillarGrid,
        *,
        pillar_channels: int,
        channels: Sequence[int],
        neck_channels: Sequence[int],
        layer_nums: Sequence[int] = (3, 5, 5),
        layer_strides: Sequence[int] = (2, 2, 2),
        classes: Sequence[AnchorClass | Mapping[str, Any]] = KITTI_ANCHORS,
        point_features: int = 4,
        legacy: bool = True,
        norm_momentum: float = 0.01,
        **detection: Any,
    ) -> None:
        super().__init__()
        self.grid = grid
        height, width = grid.map_size
        total = 1
        factors = []
        for stride in layer_strides:
            total *= stride
            factors.append(total // layer_strides[0])
        if height % total or width % total:
            raise ConfigError(
                f"a map of {height} by {width} pillars cannot be strided by {total} in all: make the range a multiple "
                "of that many pillars along x and y"
            )
        self.voxel_encoder = PillarFeatureNet(grid, pillar_channels, point_features=point_features, legacy=legacy)
        self.middle_encoder = PointPillarsScatter(grid.map_size)
        self.backbone = SECOND(pillar_channels, channels, layer_nums=layer_nums, layer_strides=layer_strides)
        self.neck = SECONDFPN(channels, neck_channels, upsample_strides=factors)
        self.bbox_head = Anchor3DHead(
            sum(neck_channels),
            as_anchor_classes(classes),
            point_range=grid.point_range,
            map_size=(height // layer_strides[0], width // layer_strides[0]),
            **detection,
        )
        check_between(norm_momentum, "norm_momentum", 0.0, 1.0)
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.momentum = norm_momentum

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.bbox_head.num_classes

    @property
    def preparation(self) -> PillarGrid:
        """What networks that share prepared points must have in common."""
        return self.grid

    def prepare(self, points: Points) -> Pillars:
        """Sort points into this network's pillars, as many as its mode allows; pillars are returned as they are.

        Raises:
            ShapeError: as :func:`~limbeck_detection.pointpillars.pillars.voxelize`; or if pillars do not fit the grid.
        """
        if not isinstance(points, Pillars):
            return voxelize(points, self.grid, training=self.training)
        if points.coords.ndim != 2 or points.coords.shape[1] != 4 or len(points.coords) != len(points.points):
            raise ShapeError(f"pillars need coords (M, 4), one row a pillar, got {tuple(points.coords.shape)}")
        return points

    def forward(
        self, points: Points, targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> HeadOutput | dict[str, Tensor]:
        """Run the network.

        Args:
            points: One tensor ``(n, 4)`` a scene: x, y, z in metres and reflectance; or :class:`Pillars`, so that
                several networks share one voxelisation.
            targets: For each scene ``boxes`` ``(n, 7)`` and ``labels`` ``(n,)``.

        Returns:
            With targets the losses by name, without them what the head says at each anchor.

        Raises:
            ShapeError: if the points or the targets have another shape.
            TargetError: as :meth:`~limbeck_detection.pointpillars.head.Anchor3DHead.loss`.
        """
        pillars = self.prepare(points)
        features = self.voxel_encoder(pillars)
        canvas = self.middle_encoder(features, pillars.coords, pillars.batch_size)
        output: HeadOutput = self.bbox_head(self.neck(self.backbone(canvas)))
        return output if targets is None else self.bbox_head.loss(output, targets)

    def predict(self, points: Points) -> list[dict[str, Tensor]]:
        """Return detections of each scene, best first: ``boxes`` ``(n, 7)``, ``scores`` and ``labels`` ``(n,)``."""
        output = self(points)
        return self.bbox_head.decode(output)


def pointpillars(
    width: int = 64,
    *,
    channels: Sequence[int] | None = None,
    neck_channels: Sequence[int] | None = None,
    point_range: Range = PillarGrid.point_range,
    pillar_size: tuple[float, float, float] = PillarGrid.pillar_size,
    max_points: int = PillarGrid.max_points,
    max_pillars: tuple[int, int] = PillarGrid.max_pillars,
    **options: Any,
) -> PointPillars:
    """Build a PointPillars; as it stands the teacher for KITTI, with 4,834,888 parameters.

    Args:
        width: Features of a pillar.
        channels: Channels of each block; default ``width``, twice and four times as many.
        neck_channels: Channels that each block's map is brought to; default twice ``width``.
        point_range: See :class:`~limbeck_detection.pointpillars.pillars.PillarGrid`.
        pillar_size: The same.
        max_points: The same.
        max_pillars: The same.
        options: Further arguments of :class:`PointPillars`.

    Raises:
        ConfigError: as :class:`PointPillars` and :class:`~limbeck_detection.pointpillars.pillars.PillarGrid`.
    """
    grid = PillarGrid(tuple(point_range), tuple(pillar_size), max_points, tuple(max_pillars))  # type: ignore[arg-type]
    widths = (width, 2 * width, 4 * width) if channels is None else tuple(channels)
    necks = (2 * width,) * len(widths) if neck_channels is None else tuple(neck_channels)
    return PointPillars(grid, pillar_channels=width, channels=widths, neck_channels=necks, **options)


def pointpillars_4x(**options: Any) -> PointPillars:
    """Half the teacher's width: 1,217,352 parameters. ``options`` as of :func:`pointpillars`."""
    return pointpillars(32, **options)


def pointpillars_8x(**options: Any) -> PointPillars:
    """The teacher's widths divided by 2.8 and rounded down. ``options`` as of :func:`pointpillars`.

    Zhang et al. use this ratio for PointRCNN; the widths of this PointPillars are derived from it here.
    """
    return pointpillars(22, **{"channels": (22, 45, 91), "neck_channels": (45, 45, 45), **options})


def pointpillars_16x(**options: Any) -> PointPillars:
    """A quarter of the teacher's width: 308,680 parameters. ``options`` as of :func:`pointpillars`."""
    return pointpillars(16, **options)
