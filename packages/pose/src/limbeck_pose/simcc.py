"""Key points as one distribution along x and one along y.

Li et al., SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation, arXiv:2107.03332, with the
Gaussian labels of RTMPose (arXiv:2303.07399, section 3.3). Constants as in mmpose's codec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from limbeck_core.checks import check_between, check_ndim, check_positive
from limbeck_core.errors import NonFiniteError, ShapeError

_VISIBLE = 0.5


@dataclass(frozen=True)
class SimCCTargets:
    """What a head is trained on.

    Args:
        x: Labels along x, ``(N, K, bins of the width)``, values 0 to 1.
        y: Labels along y, ``(N, K, bins of the height)``.
        weight: 1 for key points that have a label, else 0, ``(N, K)``.
    """

    x: Tensor
    y: Tensor
    weight: Tensor


@dataclass(frozen=True)
class SimCC:
    """Turn key points into labels along the axes, and scores along the axes into key points.

    Args:
        input_size: Height and width of the crop in pixels.
        sigma: Standard deviations of the labels along x and y, in bins. ``None`` takes the square root of a sixteenth
            of each side's bins, to two places: RTMPose's (4.9, 5.66) for crops of 256 by 192 and (6.0, 6.93) for 384 by
            288.
        bins_per_pixel: Bins a pixel.
        labels: ``"gaussian"`` puts a Gaussian with peak 1 (not normalised) around the bin; ``"smoothed"`` puts
            ``1 - smoothing`` on the bin and spreads the rest evenly.
        smoothing: Mass that ``"smoothed"`` spreads; 0 to 1.

    Raises:
        ValueError: if a number is out of range or ``labels`` is unknown.
    """

    input_size: tuple[int, int]
    sigma: tuple[float, float] | None = None
    bins_per_pixel: float = 2.0
    labels: Literal["gaussian", "smoothed"] = "gaussian"
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self.bins_per_pixel, "bins_per_pixel")
        check_between(self.smoothing, "smoothing", 0.0, 1.0)
        if self.labels not in ("gaussian", "smoothed"):
            raise ValueError(f"labels must be 'gaussian' or 'smoothed', got {self.labels!r}")

    @property
    def bins(self) -> tuple[int, int]:
        """Number of bins along x and along y."""
        height, width = self.input_size
        return int(width * self.bins_per_pixel), int(height * self.bins_per_pixel)

    @property
    def sigmas(self) -> tuple[float, float]:
        """Standard deviations along x and y, in bins."""
        x, y = (round((bins / 16) ** 0.5, 2) for bins in self.bins)
        return self.sigma or (x, y)

    def encode(self, keypoints: Tensor, visible: Tensor) -> SimCCTargets:
        """Return labels for the head.

        A key point that is not visible has an all-zero label and weight 0, so has one so far outside of the crop that
        no bin within three standard deviations is left.

        Args:
            keypoints: x and y in pixels of the crop, ``(N, K, 2)``.
            visible: Above 0.5 where the key point is labelled, ``(N, K)``.

        Raises:
            ShapeError: if the shapes are others.
            NonFiniteError: if a labelled key point is NaN or infinite.
        """
        keypoints = check_keypoints(keypoints, visible)
        weight = (visible > _VISIBLE).to(keypoints.dtype)
        # torch rounds halves to even, as the reference does
        centres = (keypoints * self.bins_per_pixel).round()
        reach = [3 * s for s in self.sigmas] if self.labels == "gaussian" else [0.0, 0.0]
        for axis, (bins, margin) in enumerate(zip(self.bins, reach, strict=True)):
            centre = centres[..., axis]
            weight = weight * ((centre + margin >= 0) & (centre - margin < bins)).to(weight.dtype)
        labels = [self._label(centres[..., axis], bins, axis) for axis, bins in enumerate(self.bins)]
        x, y = (label.mul_(weight.unsqueeze(-1)) for label in labels)
        return SimCCTargets(x, y, weight)

    def _label(self, centre: Tensor, bins: int, axis: int) -> Tensor:
        positions = torch.arange(bins, dtype=centre.dtype, device=centre.device)
        if self.labels == "gaussian":
            # in place: a whole-body batch has millions of labels
            return (positions - centre.unsqueeze(-1)).square_().mul_(-0.5 / self.sigmas[axis] ** 2).exp_()
        spread = torch.full((*centre.shape, bins), self.smoothing / max(bins - 1, 1), dtype=centre.dtype)
        peak = centre.clamp(0, bins - 1).long().unsqueeze(-1)
        return spread.to(centre.device).scatter(-1, peak, 1 - self.smoothing)

    def decode(self, scores_x: Tensor, scores_y: Tensor, *, refine: bool = False) -> tuple[Tensor, Tensor]:
        """Return key points in pixels of the crop, ``(N, K, 2)``, and their scores, ``(N, K)``.

        The score is the smaller of the two largest raw scores; where it is not above 0 the key point lies at -1 bins on
        both axes, outside of the crop.

        Args:
            scores_x: Raw scores along x, ``(N, K, bins of the width)``.
            scores_y: Raw scores along y, ``(N, K, bins of the height)``.
            refine: Move each maximum to the top of the parabola through the logarithms around it (Zhang et al.,
                Distribution-Aware Coordinate Representation, arXiv:1910.06278). For scores that are densities, such as
                labels; RTMPose's raw scores are not.

        Raises:
            ShapeError: if the numbers of bins are others than this codec's.
        """
        if (scores_x.shape[-1], scores_y.shape[-1]) != self.bins or scores_x.shape[:-1] != scores_y.shape[:-1]:
            raise ShapeError(
                f"scores must have shapes (N, K, {self.bins[0]}) and (N, K, {self.bins[1]}) for crops of "
                f"{tuple(self.input_size)} pixels (height, width), got {tuple(scores_x.shape)} and "
                f"{tuple(scores_y.shape)}"
            )
        (value_x, x), (value_y, y) = scores_x.max(-1), scores_y.max(-1)
        scores = torch.minimum(value_x, value_y)
        positions = torch.stack([x, y], -1).to(scores.dtype)
        if refine:
            sigma_x, sigma_y = self.sigmas
            offsets = [_parabola(scores_x, x, sigma_x), _parabola(scores_y, y, sigma_y)]
            positions = positions + torch.stack(offsets, -1)
        positions = torch.where((scores > 0).unsqueeze(-1), positions, torch.full_like(positions, -1.0))
        return positions / self.bins_per_pixel, scores


def check_keypoints(keypoints: Tensor, visible: Tensor) -> Tensor:
    """Return key points with zeros where nothing is labelled, whatever stood there.

    Args:
        keypoints: ``(N, K, 2)``.
        visible: Above 0.5 where labelled, ``(N, K)``.

    Raises:
        ShapeError: if the shapes are others.
        NonFiniteError: if a labelled key point is NaN or infinite.
    """
    check_ndim(keypoints, "keypoints", "(N, K, 2)", at_least=3, at_most=3)
    if keypoints.shape[-1] != 2 or visible.shape != keypoints.shape[:2]:
        raise ShapeError(
            f"keypoints and visible must have shapes (N, K, 2) and (N, K), got {tuple(keypoints.shape)} and "
            f"{tuple(visible.shape)}"
        )
    finite = torch.isfinite(keypoints).all(-1)
    wrong = (~finite & (visible > _VISIBLE)).nonzero()
    if len(wrong):
        person, point = wrong[0].tolist()
        raise NonFiniteError(
            f"key point {point} of person {person} is labelled and lies at {keypoints[person, point].tolist()}: mend "
            "the annotation, or give it visibility 0"
        )
    return torch.where(finite.unsqueeze(-1), keypoints, torch.zeros_like(keypoints))


def _parabola(scores: Tensor, at: Tensor, sigma: float) -> Tensor:
    """Distance from each maximum to the top of the parabola through log scores one and two bins beside it."""
    size = int((sigma * 20 - 7) // 3)
    size -= int(size % 2 == 0)
    spread = 0.3 * ((size - 1) * 0.5 - 1) + 0.8  # OpenCV's rule for a kernel of that size
    grid = torch.arange(size, dtype=scores.dtype, device=scores.device) - size // 2
    kernel = torch.exp(-(grid**2) / (2 * spread**2))
    kernel = (kernel / kernel.sum()).view(1, 1, -1)
    rows = scores.flatten(0, -2)
    blurred = conv1d(rows.unsqueeze(1), kernel, padding=size // 2).squeeze(1)
    peak = blurred.amax(-1, keepdim=True)
    blurred = blurred * torch.where(peak > 0, rows.amax(-1, keepdim=True) / peak, torch.ones_like(peak))
    logs = pad(blurred.clamp(1e-3, 50.0).log().unsqueeze(1), (2, 2), mode="replicate").squeeze(1)
    left2, left, middle, right, right2 = (logs.gather(-1, at.reshape(-1, 1) + shift).squeeze(-1) for shift in range(5))
    slope, curvature = 0.5 * (right - left), 1e-9 + 0.25 * (right2 - 2 * middle + left2)
    return (-slope / curvature).view(at.shape)
