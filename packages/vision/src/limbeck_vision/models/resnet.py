"""Residual networks for 32x32 images: the thin three-stage ones of the CIFAR benchmarks, and ResNet-18, 34 and
50 at ImageNet's widths.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from limbeck_vision.models.normalization import CIFAR100_NORMALIZATION, Statistics
from limbeck_vision.models.stages import StagedModel, StageInfo, conv_bn_act, init_convolutions, stage


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; ``last`` leaves the final ReLU to the stage."""

    expansion = 1
    final_norm = "bn2"

    def __init__(self, in_channels: int, width: int, stride: int, *, last: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(in_channels, width, stride)
        self.act2 = nn.Identity() if last else nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Add the branch to the shortcut."""
        branch = self.act1(self.bn1(self.conv1(features)))
        branch = self.bn2(self.conv2(branch))
        result: Tensor = self.act2(branch + self.downsample(features))
        return result


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; ``last`` leaves the final ReLU to the stage."""

    expansion = 4
    final_norm = "bn3"

    def __init__(self, in_channels: int, width: int, stride: int, *, last: bool) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _projection(in_channels, out_channels, stride)
        self.act3 = nn.Identity() if last else nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Add the branch to the shortcut."""
        branch = self.act1(self.bn1(self.conv1(features)))
        branch = self.act2(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        result: Tensor = self.act3(branch + self.downsample(features))
        return result


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


class ResNet(StagedModel):
    """Residual network; the first stage keeps the size and each later one halves it.

    Args:
        block: :class:`BasicBlock` or :class:`Bottleneck`.
        depths: Blocks of each stage.
        stem_channels: Channels after the stem.
        widths: Width of each stage, before the block's expansion.
        num_classes: Number of classes.
        normalization: Statistics of the images, see :class:`~limbeck_vision.models.stages.StagedModel`.

    Reference:
        He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385, sections 3.3 and 4.2.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        stem_channels: int,
        widths: Sequence[int],
        *,
        num_classes: int,
        normalization: Statistics,
    ) -> None:
        channels, layers, infos = stem_channels, [], []
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for position in range(depth):
                stride = 2 if index and not position else 1
                blocks.append(block(channels, width, stride, last=position == depth - 1))
                channels = width * block.expansion
            layers.append(stage(blocks))
            infos.append(StageInfo(channels, 2**index, f"layer{index + 1}.{depth - 1}.{block.final_norm}"))
        stem = conv_bn_act(3, stem_channels, 3)
        super().__init__(stem, layers, infos, embedding=channels, num_classes=num_classes, normalization=normalization)
        init_convolutions(self)


def _thin(depth: int, num_classes: int, normalization: Statistics, *, stem: int = 16, width: int = 16) -> ResNet:
    blocks = (depth - 2) // 6
    widths = (width, 2 * width, 4 * width)
    return ResNet(BasicBlock, (blocks,) * 3, stem, widths, num_classes=num_classes, normalization=normalization)


def _wide(
    block: type[BasicBlock] | type[Bottleneck], depths: Sequence[int], num_classes: int, normalization: Statistics
) -> ResNet:
    widths = (64, 128, 256, 512)
    return ResNet(block, depths, 64, widths, num_classes=num_classes, normalization=normalization)


def resnet8(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ResNet:
    """ResNet-8 of three stages with 16, 32 and 64 channels (arXiv:1512.03385, section 4.2)."""
    return _thin(8, num_classes, normalization)


def resnet8_quarter(num_classes: int = 10, *, normalization: Statistics = None) -> ResNet:
    """ResNet-8 of three stages with 4, 8 and 16 channels: small enough to need a teacher on 8x8 digits."""
    return _thin(8, num_classes, normalization, stem=4, width=4)


def resnet8_half(num_classes: int = 10, *, normalization: Statistics = None) -> ResNet:
    """ResNet-8 of three stages with 8, 16 and 32 channels: between the teacher and the student of the digits."""
    return _thin(8, num_classes, normalization, stem=8, width=8)


def resnet14(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ResNet:
    """ResNet-14 of three stages with 16, 32 and 64 channels."""
    return _thin(14, num_classes, normalization)


def resnet20(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ResNet:
    """ResNet-20 of three stages with 16, 32 and 64 channels."""
    return _thin(20, num_classes, normalization)


def resnet32(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ResNet:
    """ResNet-32 of three stages with 16, 32 and 64 channels."""
    return _thin(32, num_classes, normalization)


def resnet44(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ResNet:
    """ResNet-44 of three stages with 16, 32 and 64 channels."""
    return _thin(44, num_classes, normalization)


def resnet56(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ResNet:
    """ResNet-56 of three stages with 16, 32 and 64 channels."""
    return _thin(56, num_classes, normalization)


def resnet110(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ResNet:
    """ResNet-110 of three stages with 16, 32 and 64 channels."""
    return _thin(110, num_classes, normalization)


def resnet8x4(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ResNet:
    """ResNet-8 with four times the channels (64, 128, 256) after a stem of 32."""
    return _thin(8, num_classes, normalization, stem=32, width=64)


def resnet32x4(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ResNet:
    """ResNet-32 with four times the channels (64, 128, 256) after a stem of 32."""
    return _thin(32, num_classes, normalization, stem=32, width=64)


def resnet18(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ResNet:
    """ResNet-18 of ImageNet's widths for 32x32 images: a 3x3 stem of stride 1 and no pooling after it."""
    return _wide(BasicBlock, (2, 2, 2, 2), num_classes, normalization)


def resnet34(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ResNet:
    """ResNet-34 of ImageNet's widths for 32x32 images, see :func:`resnet18`."""
    return _wide(BasicBlock, (3, 4, 6, 3), num_classes, normalization)


def resnet50(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ResNet:
    """ResNet-50 of ImageNet's widths for 32x32 images: a 3x3 stem of stride 1 and no pooling after it.

    The 3x3 convolution of a bottleneck carries the stride.
    """
    return _wide(Bottleneck, (3, 4, 6, 3), num_classes, normalization)
