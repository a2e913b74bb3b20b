"""CSPNeXt, the backbone of RTMPose: stages of large depthwise kernels behind a cross-stage split.

Lyu et al., RTMDet: An Empirical Study of Designing Real-Time Object Detectors, arXiv:2212.07784, section 3; the pose
variant has four stages ("P5"). Names of weights are those of mmpose, so that its checkpoints load unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck_core.checks import check_ndim, check_positive
from limbeck_core.errors import ShapeError

STRIDE = 32  # input pixels a cell of the last map
_WIDTHS = (64, 128, 256, 512, 1024)  # of the stem and the four stages, before scaling
_DEPTHS = (3, 6, 6, 3)


class ConvBlock(nn.Module):
    """Convolution without bias, batch norm, SiLU; the spatial size is the input's, divided by the stride.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        kernel_size: Odd width of the kernel.
        stride: Step of the kernel.
        groups: Groups of channels that do not mix; ``in_channels`` makes the convolution depthwise.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        # CSPNeXt itself has eps 1e-3 and momentum 0.03, but the pose configs of mmpose replace the whole norm_cfg,
        # so its released weights go with PyTorch's 1e-5 and 0.1
        self.bn = nn.BatchNorm2d(out_channels)
        self.activate = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C', H / stride, W / stride)``."""
        activated: Tensor = self.activate(self.bn(self.conv(x)))
        return activated


class DepthwiseSeparable(nn.Module):
    """Depthwise 5x5 and pointwise 1x1, each with batch norm and SiLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvBlock(channels, channels, 5, groups=channels)
        self.pointwise_conv = ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(N, C, H, W)``."""
        mixed: Tensor = self.pointwise_conv(self.depthwise_conv(x))
        return mixed


class CSPNeXtBlock(nn.Module):
    """3x3 convolution, then a depthwise separable 5x5; with an identity path in all stages but the last."""

    def __init__(self, channels: int, *, identity: bool) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, channels, 3)
        self.conv2 = DepthwiseSeparable(channels)
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(N, C, H, W)``."""
        out: Tensor = self.conv2(self.conv1(x))
        return out + x if self.identity else out


class ChannelAttention(nn.Module):
    """Weigh channels by a hard sigmoid of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(N, C, H, W)``."""
        weights: Tensor = self.gate(self.fc(x.mean((2, 3), keepdim=True)))
        return x * weights


class CSPLayer(nn.Module):
    """Half of the channels go through blocks, half go past them; channel attention weighs both together."""

    def __init__(self, channels: int, blocks: int, *, identity: bool) -> None:
        super().__init__()
        half = channels // 2
        self.main_conv = ConvBlock(channels, half)
        self.short_conv = ConvBlock(channels, half)
        self.final_conv = ConvBlock(2 * half, channels)
        self.blocks = nn.Sequential(*(CSPNeXtBlock(half, identity=identity) for _ in range(blocks)))
        self.attention = ChannelAttention(2 * half)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(N, C, H, W)``."""
        both = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], 1)
        out: Tensor = self.final_conv(self.attention(both))
        return out


class SpatialPyramid(nn.Module):
    """Pool with windows of 5, 9 and 13 cells beside the map itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = ConvBlock(channels, half)
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in (5, 9, 13))
        self.conv2 = ConvBlock(4 * half, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape ``(N, C, H, W)``."""
        x = self.conv1(x)
        out: Tensor = self.conv2(torch.cat([x, *(pool(x) for pool in self.pools)], 1))
        return out


class CSPNeXt(nn.Module):
    """The backbone; taps of interest are ``stage1`` to ``stage4``.

    Args:
        width: Factor on the channels; 1 gives 128, 256, 512 and 1024 in the four stages.
        depth: Factor on the number of blocks; 1 gives 3, 6, 6 and 3.

    Raises:
        ValueError: if a factor is not above 0.
    """

    def __init__(self, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        check_positive(width, "width")
        check_positive(depth, "depth")
        stem, *stages = (int(channels * width) for channels in _WIDTHS)
        self.stem = nn.Sequential(
            ConvBlock(3, stem // 2, 3, stride=2), ConvBlock(stem // 2, stem // 2, 3), ConvBlock(stem // 2, stem, 3)
        )
        below = stem
        for number, (channels, blocks) in enumerate(zip(stages, _DEPTHS, strict=True), start=1):
            last = number == len(stages)
            parts: list[nn.Module] = [ConvBlock(below, channels, 3, stride=2)]
            if last:
                parts.append(SpatialPyramid(channels))
            parts.append(CSPLayer(channels, max(round(blocks * depth), 1), identity=not last))
            self.add_module(f"stage{number}", nn.Sequential(*parts))
            below = channels
        self.out_channels = below

    def forward(self, images: Tensor) -> Tensor:
        """Return the last map, ``(N, out_channels, H / 32, W / 32)``.

        Args:
            images: Normalised images, ``(N, 3, H, W)``, with sides divisible by 32.

        Raises:
            ShapeError: if the shape is another.
        """
        check_ndim(images, "images", "(N, 3, H, W)", at_least=4, at_most=4)
        height, width = images.shape[2:]
        if images.shape[1] != 3 or height % STRIDE or width % STRIDE:
            raise ShapeError(
                f"CSPNeXt needs images of shape (N, 3, H, W) with sides divisible by {STRIDE}, got "
                f"{tuple(images.shape)}: crop or resize people to such a size, for example 256 by 192"
            )
        x = self.stem(images)
        for number in range(1, 5):
            x = getattr(self, f"stage{number}")(x)
        features: Tensor = x
        return features
