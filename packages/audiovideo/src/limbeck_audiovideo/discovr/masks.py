"""Which patches a student sees: the same ones in every frame of a clip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from limbeck_core.build import build
from limbeck_core.checks import check_between
from limbeck_core.errors import ConfigError


class Mask(Protocol):
    """Draws the patches that stay visible; every row of one call keeps the same number of them."""

    def draw(self, views: int, samples: int, height: int, width: int) -> Tensor:
        """Return positions of the visible patches on a grid, rising, integers ``(views, samples, visible)``."""
        ...


@dataclass(frozen=True)
class RandomMask:
    """Hide patches at random; those of a video stay hidden in all its frames (a tube).

    Args:
        ratio: Share of the patches that is hidden, in [0, 1). DISCOVR: 0.9, of 49 patches 44.

    Raises:
        ValueError: if ``ratio`` is out of range.
    """

    ratio: float = 0.9

    def __post_init__(self) -> None:
        """Refuse a share out of range."""
        check_between(self.ratio, "ratio", 0.0, 1.0)

    def draw(self, views: int, samples: int, height: int, width: int) -> Tensor:
        """Return positions of the visible patches, rising, integers ``(views, samples, visible)``.

        Drawn from PyTorch's generator of the CPU, so that every device sees the same.

        Raises:
            ConfigError: if no patch would be visible.
        """
        patches = height * width
        visible = patches - int(self.ratio * patches)
        if visible < 1:
            raise ConfigError(
                f"a mask of ratio {self.ratio} leaves none of {height} x {width} patches visible: hide a smaller share"
            )
        return torch.rand(views, samples, patches).topk(visible, dim=-1).indices.sort(dim=-1).values


@dataclass(frozen=True)
class RegionMask:
    """Show one rectangle of patches and hide the rest.

    All rectangles of one call have one size, drawn anew each time, and each row has a place of its own. How the
    reference draws the sides beyond their jitter is not known; here both begin at the same share of the picture.

    Args:
        visible: Share of the picture that is shown, in (0, 1].
        jitter: Patches by which each side may differ from that. DISCOVR: 16 pixels, one patch.
        smallest: Least side in patches. DISCOVR: 32 pixels, two patches.

    Raises:
        ValueError: if ``visible`` is out of range; ConfigError: if a number of patches is.
    """

    visible: float = 0.4
    jitter: int = 1
    smallest: int = 2

    def __post_init__(self) -> None:
        """Refuse rectangles that show nothing."""
        check_between(self.visible, "visible", 1e-6, 1.0)
        if self.jitter < 0 or self.smallest < 1:
            raise ConfigError(f"jitter must be >= 0 and smallest >= 1, got {self.jitter} and {self.smallest}")

    def draw(self, views: int, samples: int, height: int, width: int) -> Tensor:
        """Return positions of the visible patches, rising, integers ``(views, samples, visible)``."""
        share = math.sqrt(self.visible)
        sides = []
        for length in (height, width):
            side = round(share * length) + int(torch.randint(-self.jitter, self.jitter + 1, ()))
            sides.append(min(max(side, self.smallest), length))
        rows, columns = sides
        top = torch.randint(height - rows + 1, (views, samples, 1, 1)) + torch.arange(rows)[:, None]
        left = torch.randint(width - columns + 1, (views, samples, 1, 1)) + torch.arange(columns)
        return (top * width + left).flatten(2)


@dataclass(frozen=True)
class MixedMask:
    """One mask or another, with equal chances.

    Args:
        first: The one, or a config of it.
        second: The other.
    """

    first: Mask = RandomMask()
    second: Mask = RegionMask()

    def __post_init__(self) -> None:
        """Build masks from configs."""
        object.__setattr__(self, "first", build(self.first))  # frozen for everybody else
        object.__setattr__(self, "second", build(self.second))

    def draw(self, views: int, samples: int, height: int, width: int) -> Tensor:
        """Return positions of the visible patches, rising, integers ``(views, samples, visible)``."""
        mask = self.first if float(torch.rand(())) < 0.5 else self.second
        return mask.draw(views, samples, height, width)


@dataclass(frozen=True)
class Views:
    """What one step draws of each clip.

    Args:
        video: Mask of the clip, for the view that the clusters are predicted from and for the local views; or a config.
        image: Mask of each single frame, or a config.
        local: Local views whose class tokens are compared with the teacher's, of clip and frame alike, 1 or more.

    Raises:
        ConfigError: without a local view, there would be nothing to compare.
    """

    video: Mask = RandomMask()
    image: Mask = RandomMask()
    local: int = 4

    def __post_init__(self) -> None:
        """Build masks from configs, and refuse a step without views."""
        object.__setattr__(self, "video", build(self.video))  # frozen for everybody else
        object.__setattr__(self, "image", build(self.image))
        if self.local < 1:
            raise ConfigError(f"local must be 1 or more, got {self.local}: without a local view nothing is compared")
