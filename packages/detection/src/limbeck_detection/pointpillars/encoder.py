"""The pillar feature net: each point with its offsets, one linear layer, the maximum over a pillar's points.

Lang et al., PointPillars, arXiv:1812.05784, section 2.1. Names of weights are those of mmdet3d, so that its checkpoints
load unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from limbeck_core.errors import ShapeError
from limbeck_detection.pointpillars.pillars import PillarGrid, Pillars, scatter

OFFSETS = 6  # to the mean of the pillar's points, and to its centre


class PFNLayer(nn.Module):
    """Linear layer without bias, batch norm, ReLU, maximum over the slots of a pillar.

    Args:
        in_channels: Features of a decorated point.
        out_channels: Features of a pillar.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm = nn.BatchNorm1d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, points: Tensor) -> Tensor:
        """Encode ``(M, P, in_channels)`` as ``(M, out_channels)``; slots of zeros take part, as in the original."""
        slots = self.linear(points).transpose(1, 2)
        if slots.shape[0] * slots.shape[2] < 2:  # no statistics can be taken of so little
            norm = self.norm
            slots = batch_norm(slots, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        else:
            slots = self.norm(slots)
        return torch.relu(slots).amax(2)


class PillarFeatureNet(nn.Module):
    """Decorate the points of each pillar and encode them as one vector.

    A point's features are followed by its offsets to the mean of the pillar's points and to the pillar's centre.

    Args:
        grid: Where pillars stand.
        out_channels: Features of a pillar.
        point_features: Features of a point: x, y, z and others.
        legacy: Put the offsets to the centre in the place of x, y and z too, so that absolute positions are absent. The
            public checkpoints were trained so.
    """

    def __init__(
        self, grid: PillarGrid, out_channels: int = 64, *, point_features: int = 4, legacy: bool = True
    ) -> None:
        super().__init__()
        self.grid = grid
        self.point_features = point_features
        self.legacy = legacy
        self.pfn_layers = nn.ModuleList([PFNLayer(point_features + OFFSETS, out_channels)])

    def forward(self, pillars: Pillars) -> Tensor:
        """Return the features of the pillars, ``(M, out_channels)``.

        Raises:
            ShapeError: if the points have another number of features than this network takes.
        """
        if pillars.points.shape[-1] != self.point_features:
            raise ShapeError(
                f"this network takes {self.point_features} features of a point (point_features), the pillars have "
                f"{pillars.points.shape[-1]}"
            )
        features: Tensor = self.pfn_layers[0](self.decorate(pillars))
        return features

    def decorate(self, pillars: Pillars) -> Tensor:
        """Return the points with their offsets, zeros in empty slots, ``(M, P, point_features + 6)``."""
        points, counts = pillars.points, pillars.num_points
        position = points[..., :3]
        mean = position.sum(1, keepdim=True) / counts.to(points.dtype).view(-1, 1, 1)
        size = points.new_tensor(self.grid.pillar_size)
        first_centre = points.new_tensor(self.grid.point_range[:3]) + size / 2
        centre = pillars.coords[:, [3, 2, 1]].to(points.dtype) * size + first_centre
        to_centre = position - centre[:, None]
        shown = torch.cat([to_centre, points[..., 3:]], -1) if self.legacy else points
        filled = torch.arange(points.shape[1], device=points.device) < counts[:, None]
        return torch.cat([shown, position - mean, to_centre], -1) * filled[..., None].to(points.dtype)


class PointPillarsScatter(nn.Module):
    """Lay the features of pillars out as a map; see :func:`~limbeck_detection.pointpillars.pillars.scatter`.

    Args:
        map_size: Height and width of the map.
    """

    def __init__(self, map_size: tuple[int, int]) -> None:
        super().__init__()
        self.map_size = map_size

    def forward(self, features: Tensor, coords: Tensor, batch_size: int) -> Tensor:
        """Return the map ``(batch_size, C, height, width)``."""
        return scatter(features, coords, batch_size=batch_size, map_size=self.map_size)
