"""Which moments of a video make a clip, and which part of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from limbeck_core.checks import check_between, check_positive
from limbeck_core.errors import ConfigError, ShapeError


@dataclass(frozen=True)
class Clip:
    """Evenly spaced moments of a video.

    By time and not by frame number: a clip covers the same span of a heart beat whatever the camera's rate, and however
    that varies. A video shorter than the clip repeats its last frame.

    Args:
        length: Number of frames T, 1 or more.
        spacing: Seconds between frames, above 0. DISCOVR takes every third frame: 0.06 at 50 frames a second.
        start: ``"random"`` draws from PyTorch's generator, ``"middle"`` centres the clip, ``"first"`` begins at 0.

    Raises:
        ConfigError: if an argument is out of range.
    """

    length: int = 64
    spacing: float = 0.06
    start: Literal["random", "middle", "first"] = "middle"

    def __post_init__(self) -> None:
        """Refuse a clip without frames or span."""
        if self.length < 1:
            raise ConfigError(f"length of a clip must be 1 frame or more, got {self.length}")
        check_positive(self.spacing, "spacing")
        if self.start not in ("random", "middle", "first"):
            raise ConfigError(f"start of a clip must be 'random', 'middle' or 'first', got {self.start!r}")

    def moments(self, duration: float) -> Tensor:
        """Return the moments of one clip.

        Args:
            duration: When the video's last frame begins, in seconds from its first.

        Returns:
            Seconds, rising, float64 ``(length,)``; they run past ``duration`` where the video is too short.
        """
        room = max(duration - (self.length - 1) * self.spacing, 0.0)
        share = {"random": lambda: float(torch.rand(())), "middle": lambda: 0.5, "first": lambda: 0.0}[self.start]()
        return share * room + torch.arange(self.length, dtype=torch.float64) * self.spacing


@dataclass(frozen=True)
class MultiScaleCrop:
    """A square of random size and place, the same in all frames of a clip, resized.

    The reference picks among thirteen places; here every place is as likely.

    Args:
        size: Height and width of the result in pixels.
        scales: Sides to choose from, as shares of the shorter side of the picture, in (0, 1].

    Raises:
        ConfigError: if there is no scale; ValueError: if one is out of range.
    """

    size: int = 112
    scales: Sequence[float] = (1.0, 0.875, 0.75, 0.66)

    def __post_init__(self) -> None:
        """Refuse crops that hold nothing, or more than the picture."""
        if not self.scales or self.size < 1:
            raise ConfigError(
                f"a crop needs a size of 1 or more and at least one scale, got {self.size}, {self.scales}"
            )
        for scale in self.scales:
            check_between(scale, "scale", 1e-3, 1.0)

    def __call__(self, frames: Tensor) -> Tensor:
        """Cut one clip.

        Args:
            frames: Bytes, ``(T, C, H, W)``.

        Returns:
            Bytes, ``(T, C, size, size)``.
        """
        height, width = frames.shape[-2:]
        scale = self.scales[int(torch.randint(len(self.scales), ()))]
        side = max(round(scale * min(height, width)), 1)
        top, left = (int(torch.randint(room + 1, ())) for room in (height - side, width - side))
        return resized(frames[..., top : top + side, left : left + side], self.size)


@dataclass(frozen=True)
class CentreCrop:
    """The largest square in the middle, resized.

    Args:
        size: Height and width of the result in pixels.
    """

    size: int = 112

    def __call__(self, frames: Tensor) -> Tensor:
        """Cut one clip of bytes ``(T, C, H, W)`` to ``(T, C, size, size)``."""
        height, width = frames.shape[-2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return resized(frames[..., top : top + side, left : left + side], self.size)


def resized(frames: Tensor, size: int) -> Tensor:
    """Resize bytes ``(T, C, H, W)`` to a square of so many pixels, with a filter against aliasing.

    Raises:
        ShapeError: if ``frames`` are no bytes of that shape.
    """
    if frames.ndim != 4 or frames.dtype != torch.uint8:
        raise ShapeError(f"frames must be bytes (T, C, H, W), got {frames.dtype} {tuple(frames.shape)}")
    if frames.shape[-2:] == (size, size):
        return frames
    smooth = interpolate(frames.float(), size=(size, size), mode="bilinear", antialias=True)
    return smooth.round_().clamp_(0, 255).to(torch.uint8)
