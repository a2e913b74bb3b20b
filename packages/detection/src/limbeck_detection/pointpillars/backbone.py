"""The convolutions on the map of pillars: SECOND's backbone and the pyramid that joins its scales.

Yan et al., SECOND: Sparsely Embedded Convolutional Detection, Sensors 2018, section 3.1; Lang et al., PointPillars,
arXiv:1812.05784, section 2.2. Names of weights are those of mmdet3d.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck_core.errors import ConfigError


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class SECOND(nn.Module):
    """Blocks of 3 x 3 convolutions, each with batch norm and ReLU; the first of a block may stride.

    Args:
        in_channels: Channels of the map of pillars.
        out_channels: Channels of each block.
        layer_nums: Convolutions of each block after its first.
        layer_strides: Stride of each block's first convolution.

    Raises:
        ConfigError: if the three say different numbers of blocks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: Sequence[int],
        *,
        layer_nums: Sequence[int] = (3, 5, 5),
        layer_strides: Sequence[int] = (2, 2, 2),
    ) -> None:
        super().__init__()
        if not len(out_channels) == len(layer_nums) == len(layer_strides):
            raise ConfigError(
                "each block needs its channels, its number of layers and its stride, got "
                f"{list(out_channels)}, {list(layer_nums)} and {list(layer_strides)}"
            )
        blocks = []
        for channels, layers, stride in zip(out_channels, layer_nums, layer_strides, strict=True):
            parts: list[nn.Module] = []
            for index in range(layers + 1):
                conv = nn.Conv2d(
                    channels if index else in_channels,
                    channels,
                    3,
                    stride=1 if index else stride,
                    padding=1,
                    bias=False,
                )
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                parts += [conv, _norm(channels), nn.ReLU(inplace=True)]
            blocks.append(nn.Sequential(*parts))
            in_channels = channels
        self.blocks = nn.ModuleList(blocks)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return the map after each block."""
        maps = []
        for block in self.blocks:
            features = block(features)
            maps.append(features)
        return tuple(maps)


class SECONDFPN(nn.Module):
    """Bring the maps of all blocks to the size of the first and join their channels.

    Args:
        in_channels: Channels of each map.
        out_channels: Channels that each map is brought to.
        upsample_strides: Factor by which each map grows.

    Raises:
        ConfigError: if the three say different numbers of maps.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: Sequence[int], *, upsample_strides: Sequence[int] = (1, 2, 4)
    ) -> None:
        super().__init__()
        if not len(in_channels) == len(out_channels) == len(upsample_strides):
            raise ConfigError(
                "each map needs its channels, those it is brought to and its factor, got "
                f"{list(in_channels)}, {list(out_channels)} and {list(upsample_strides)}"
            )
        self.deblocks = nn.ModuleList()
        for before, after, stride in zip(in_channels, out_channels, upsample_strides, strict=True):
            grow = nn.ConvTranspose2d(before, after, stride, stride=stride, bias=False)
            nn.init.kaiming_normal_(grow.weight, mode="fan_out", nonlinearity="relu")
            self.deblocks.append(nn.Sequential(grow, _norm(after), nn.ReLU(inplace=True)))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the joined map."""
        return torch.cat([grow(features) for grow, features in zip(self.deblocks, maps, strict=True)], 1)
