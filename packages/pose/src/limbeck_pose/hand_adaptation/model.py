"""A network for 21 key points and a mask of one hand: a mask head on early features, stacked hourglasses on top.

Ohkawa et al., Domain Adaptive Hand Keypoint and Pixel Localization in the Wild, arXiv:2203.08344, and its released
code; hourglasses as in Newell et al., arXiv:1603.06937. Only the last hourglass is supervised.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from limbeck_core.build import build
from limbeck_core.checks import check_between, check_ndim
from limbeck_core.errors import ShapeError
from limbeck_core.weights import load_weights

KEYPOINTS = 21


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm beside an identity, or a 1x1 convolution where the width changes.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        dropout: Share of channels that training drops behind the block.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C', H, W)``."""
        out: Tensor = self.dropout(torch.relu(self.body(x) + self.skip(x)))
        return out


class Hourglass(nn.Module):
    """Residual blocks on a pyramid of halved maps, added up on the way back.

    Args:
        depth: Number of halvings.
        width: Channels everywhere.
        blocks: Residual blocks at each place.
        dropout: See :class:`Residual`.
    """

    def __init__(self, depth: int, width: int, *, blocks: int, dropout: float) -> None:
        super().__init__()

        def chain() -> nn.Sequential:
            return nn.Sequential(*(Residual(width, width, dropout) for _ in range(blocks)))

        self.beside, self.down, self.up = chain(), chain(), chain()
        self.inner: nn.Module = Hourglass(depth - 1, width, blocks=blocks, dropout=dropout) if depth > 1 else chain()

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(N, C, H, W)``."""
        low = self.up(self.inner(self.down(max_pool2d(x, 2))))
        out: Tensor = self.beside(x) + interpolate(low, size=x.shape[2:], mode="nearest")
        return out


class HandNet(nn.Module):
    """Heatmaps of key points at half the size of the crop, and a mask at its full size.

    Taps of interest: ``features`` (full size), ``mask_head`` and ``keypoint_head``. The defaults are the released
    network's.

    Args:
        keypoints: Number of key points K.
        width: Channels of the features.
        stacks: Number of hourglasses.
        depth: Halvings in each; sides of the crop must be divisible by ``2 ** (depth + 1)``.
        blocks: Residual blocks at each place of an hourglass.
        dropout: Share of channels that training drops behind each block.

    Raises:
        ShapeError: if ``width`` is not divisible by 4, or ``stacks`` or ``depth`` is below 1.
        ValueError: if ``dropout`` is not within 0 to 1.
    """

    def __init__(
        self,
        *,
        keypoints: int = KEYPOINTS,
        width: int = 256,
        stacks: int = 2,
        depth: int = 4,
        blocks: int = 2,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if width < 4 or width % 4 or min(stacks, depth, blocks) < 1:
            raise ShapeError(
                f"HandNet needs a width divisible by 4 and at least one stack, halving and block, got width {width}, "
                f"stacks {stacks}, depth {depth}, blocks {blocks}"
            )
        check_between(dropout, "dropout", 0.0, 1.0)
        self.multiple = 2 ** (depth + 1)
        self.features = nn.Sequential(
            nn.Conv2d(3, width // 4, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width // 4),
            nn.ReLU(inplace=True),
            Residual(width // 4, width // 2, dropout),
            Residual(width // 2, width // 2, dropout),
            Residual(width // 2, width, dropout),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.mask_head = nn.Conv2d(width, 1, 1)
        self.stacks = nn.ModuleList(Hourglass(depth, width, blocks=blocks, dropout=dropout) for _ in range(stacks))
        self.keypoint_head = nn.Conv2d(width, keypoints, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return heatmaps ``(N, K, H / 2, W / 2)`` and logits of the mask ``(N, 1, H, W)``.

        Args:
            images: Crops in RGB with values from 0 to 255, ``(N, 3, H, W)``, bytes or floats.

        Raises:
            ShapeError: if a side is not divisible by ``2 ** (depth + 1)``.
        """
        check_ndim(images, "images", "(N, 3, H, W)", at_least=4, at_most=4)
        if any(side % self.multiple for side in images.shape[2:]):
            raise ShapeError(
                f"HandNet needs crops with sides divisible by {self.multiple}, got {tuple(images.shape[2:])}: choose "
                "another size of the data set, or a smaller depth"
            )
        features = self.features(images.to(self.mask_head.weight.dtype) / 127.5 - 1)
        mask: Tensor = self.mask_head(features)
        x = interpolate(features, scale_factor=0.5, mode="nearest")
        for stack in self.stacks:
            x = x + stack(x)
        heatmaps: Tensor = self.keypoint_head(x)
        return heatmaps, mask


def trained(model: nn.Module | Mapping[str, Any], checkpoint: str | Path) -> nn.Module:
    """Return a model with weights read from a file, that goes on training.

    Args:
        model: The architecture: a module, or a config of one.
        checkpoint: File with its weights. On the meta device, where a config is only looked at, nothing is read.

    Raises:
        CheckpointError: if the file is missing, damaged, or does not match.
    """
    built: nn.Module = build(model)
    if torch.get_default_device().type != "meta":
        load_weights(built, Path(checkpoint))
    return built
