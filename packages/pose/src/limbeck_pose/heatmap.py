"""Key points as heatmaps: codec, head and task loss, and what lets SimCC's losses read them.

Xiao et al., Simple Baselines for Human Pose Estimation and Tracking, arXiv:1804.06208; constants as in mmpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from limbeck_core.checks import check_ndim, check_positive, check_same_shape
from limbeck_core.errors import ShapeError
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss
from limbeck_pose.simcc import check_keypoints

_VISIBLE = 0.5


@dataclass(frozen=True)
class HeatmapTargets:
    """What a head is trained on.

    Args:
        heatmaps: Gaussians with peak 1, ``(N, K, H / stride, W / stride)``.
        weight: 1 for key points that have a label, else 0, ``(N, K)``.
    """

    heatmaps: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Heatmap:
    """Turn key points into heatmaps, and heatmaps into key points. Cell i stands for pixel ``stride * i``.

    Args:
        input_size: Height and width of the crop in pixels, divisible by ``stride``.
        sigma: Standard deviation of a Gaussian in cells.
        stride: Pixels of the crop a cell.

    Raises:
        ValueError: if a number is not above 0.
        ShapeError: if ``input_size`` is not divisible by ``stride``.
    """

    input_size: tuple[int, int]
    sigma: float = 2.0
    stride: int = 4

    def __post_init__(self) -> None:
        check_positive(self.sigma, "sigma")
        check_positive(self.stride, "stride")
        if any(side % self.stride for side in self.input_size):
            raise ShapeError(
                f"input_size must be (height, width) divisible by {self.stride}, got {tuple(self.input_size)}"
            )

    @property
    def cells(self) -> tuple[int, int]:
        """Height and width of a heatmap."""
        return self.input_size[0] // self.stride, self.input_size[1] // self.stride

    def encode(self, keypoints: Tensor, visible: Tensor) -> HeatmapTargets:
        """Return heatmaps; the Gaussians stand between cells where the key points do.

        A key point that is not visible, or more than three standard deviations outside of the crop, has an empty
        heatmap and weight 0.

        Args:
            keypoints: x and y in pixels of the crop, ``(N, K, 2)``.
            visible: Above 0.5 where the key point is labelled, ``(N, K)``.

        Raises:
            ShapeError: if the shapes are others.
            NonFiniteError: if a labelled key point is NaN or infinite.
        """
        keypoints = check_keypoints(keypoints, visible)
        centres, reach = keypoints / self.stride, 3 * self.sigma
        weight = (visible > _VISIBLE).to(keypoints.dtype)
        profiles = []
        for axis, cells in ((1, self.cells[0]), (0, self.cells[1])):
            centre = centres[..., axis]
            weight = weight * ((centre + reach >= 0) & (centre - reach < cells)).to(weight.dtype)
            grid = torch.arange(cells, dtype=centre.dtype, device=centre.device)
            profiles.append(torch.exp(-((grid - centre.unsqueeze(-1)) ** 2) / (2 * self.sigma**2)))
        rows, columns = profiles
        return HeatmapTargets(rows.unsqueeze(-1) * (columns * weight.unsqueeze(-1)).unsqueeze(-2), weight)

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Return key points in pixels of the crop, ``(N, K, 2)``, and their scores, ``(N, K)``.

        The largest cell, moved by a quarter of one towards its larger neighbour on each axis; the score is its value.
        Where that is not above 0 the key point lies at -1 cells on both axes.

        Args:
            heatmaps: ``(N, K, H / stride, W / stride)``.

        Raises:
            ShapeError: if the shape is another.
        """
        if heatmaps.ndim != 4 or tuple(heatmaps.shape[2:]) != self.cells:
            raise ShapeError(
                f"heatmaps must have shape (N, K, {self.cells[0]}, {self.cells[1]}) for crops of "
                f"{tuple(self.input_size)} pixels (height, width), got {tuple(heatmaps.shape)}"
            )
        height, width = self.cells
        scores, best = heatmaps.flatten(2).max(-1)
        y, x = best // width, best % width
        rows = heatmaps.gather(2, y[..., None, None].expand(-1, -1, 1, width)).squeeze(2)
        columns = heatmaps.gather(3, x[..., None, None].expand(-1, -1, height, 1)).squeeze(3)
        cells = torch.stack([_nudged(rows, x), _nudged(columns, y)], -1)
        cells = torch.where((scores > 0).unsqueeze(-1), cells, torch.full_like(cells, -1.0))
        return cells * self.stride, scores


def _nudged(profile: Tensor, at: Tensor) -> Tensor:
    last = profile.shape[-1] - 1
    below, above = ((at + step).clamp(0, last).unsqueeze(-1) for step in (-1, 1))
    slope = (profile.gather(-1, above) - profile.gather(-1, below)).squeeze(-1)
    inside = (at > 0) & (at < last)
    return at.to(profile.dtype) + 0.25 * slope.sign() * inside.to(profile.dtype)


class HeatmapHead(nn.Module):
    """Transposed convolutions that double the map, and a 1x1 convolution to one heatmap a key point.

    Names of weights are those of mmpose's head of the same name.

    Args:
        in_channels: Channels of the backbone's last map.
        keypoints: Number of key points K.
        hidden_dims: Channels of each transposed convolution; each doubles height and width.
    """

    def __init__(self, in_channels: int, *, keypoints: int, hidden_dims: Sequence[int] = (256, 256, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        below = in_channels
        for dim in hidden_dims:
            layers += [
                nn.ConvTranspose2d(below, dim, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(dim),
                nn.ReLU(inplace=True),
            ]
            below = dim
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(below, keypoints, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew, as a head that was never trained."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, std=0.001)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to heatmaps ``(N, K, 2^n H, 2^n W)``."""
        heatmaps: Tensor = self.final_layer(self.deconv_layers(features))
        return heatmaps


class HeatmapTaskLoss(nn.Module):
    r"""Squared error of heatmaps, over labelled key points.

    .. math:: L_n = \frac{1}{K H W} \sum_{k, p} w_{nk} (h_{nkp} - g_{nkp})^2

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, heatmaps: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Compute the loss.

        Args:
            heatmaps: ``(N, K, H, W)``.
            targets: True heatmaps of that shape, and weights ``(N, K)``, as :class:`HeatmapTargets` orders them.

        Raises:
            ShapeError: if there are not two targets, or a shape does not fit.
        """
        if len(targets) != 2:
            raise ShapeError(f"expected targets (heatmaps, weight), got {len(targets)} tensors: use the Heatmap codec")
        truth, weight = targets
        check_same_shape(heatmaps, truth, "heatmaps", "targets", "model and codec need one stride and one layout")
        if weight.shape != heatmaps.shape[:2]:
            raise ShapeError(
                f"weight must have one value a key point, {tuple(heatmaps.shape[:2])}, got {tuple(weight.shape)}"
            )
        per_keypoint = (heatmaps - truth).square().mean((2, 3)) * weight
        return reduce_loss(per_keypoint.mean(1), self.reduction)


class AxisScores(nn.Module):
    """Adapter from heatmaps to scores along one axis, as a SimCC head gives them: the largest value of each line.

    With it :class:`~limbeck_pose.dwpose.SimCCDivergenceLoss` compares a heatmap model with a SimCC model, or two
    heatmap models, in either role. A Gaussian with peak 1 becomes SimCC's label, a Gaussian with peak 1.

    Args:
        axis: ``"x"`` or ``"y"``.
        bins: Length of the result; lines between cells are interpolated. ``None`` keeps the cells.
        stride: Pixels of the crop a cell.
        bins_per_pixel: Bins a pixel.

    Raises:
        ValueError: if ``axis`` is unknown or a number is not above 0.
    """

    def __init__(
        self,
        axis: Literal["x", "y"],
        *,
        bins: int | None = None,
        stride: int = 4,
        bins_per_pixel: float = 2.0,
    ) -> None:
        super().__init__()
        if axis not in ("x", "y"):
            raise ValueError(f"axis must be 'x' or 'y', got {axis!r}")
        check_positive(stride, "stride")
        check_positive(bins_per_pixel, "bins_per_pixel")
        self.axis, self.bins = axis, bins
        self.bins_per_cell = stride * bins_per_pixel

    def forward(self, heatmaps: Tensor) -> Tensor:
        """Map ``(N, K, H, W)`` to ``(N, K, bins)``."""
        check_ndim(heatmaps, "heatmaps", "(N, K, H, W)", at_least=4, at_most=4)
        scores: Tensor = heatmaps.amax(2 if self.axis == "x" else 3)
        if self.bins is None:
            return scores
        # cell i is bin i * bins_per_cell; beyond the last cell its value goes on
        length = int((scores.shape[-1] - 1) * self.bins_per_cell) + 1
        fine = interpolate(scores, size=length, mode="linear", align_corners=True)
        if length < self.bins:
            fine = torch.cat([fine, fine[..., -1:].expand(-1, -1, self.bins - length)], -1)
        return fine[..., : self.bins]

    def extra_repr(self) -> str:
        """Show the arguments in ``repr``."""
        return f"{self.axis!r}, bins={self.bins}"
