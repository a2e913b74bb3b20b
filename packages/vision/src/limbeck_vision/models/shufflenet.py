"""ShuffleNet V1 and V2 for 32x32 images: a 1x1 stem of stride 1 and no pooling after it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck_vision.models.normalization import CIFAR100_NORMALIZATION, Statistics
from limbeck_vision.models.stages import StagedModel, StageInfo, conv_bn_act, stage


def shuffle(features: Tensor, groups: int) -> Tensor:
    """Deal the channels of ``groups`` groups out in turn, so that the next groups hold some of each."""
    batch, channels, height, width = features.shape
    dealt = features.reshape(batch, groups, channels // groups, height, width).transpose(1, 2)
    return dealt.reshape(batch, channels, height, width)


class ShuffleUnitV1(nn.Module):
    """Grouped 1x1, channel shuffle, depthwise 3x3, grouped 1x1.

    With stride 2 the pooled input is appended to the result, with stride 1 it is added.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the whole output.
        stride: 1 or 2.
        groups: Groups of the 1x1 convolutions.
        grouped_input: Whether the first convolution is grouped; the paper leaves it whole on the stem's few channels.
        last: Leave the final ReLU to the stage.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, groups: int, grouped_input: bool, last: bool
    ) -> None:
        super().__init__()
        branch = out_channels - in_channels if stride == 2 else out_channels
        middle = branch // 4
        self.groups = groups if grouped_input else 1
        self.conv1 = nn.Conv2d(in_channels, middle, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.act2 = nn.ReLU()
        self.conv3 = nn.Conv2d(middle, branch, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(branch)
        self.shortcut: nn.Module = nn.AvgPool2d(3, 2, 1) if stride == 2 else nn.Identity()
        self.joined = stride == 2
        self.act3 = nn.Identity() if last else nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Join or add the branch and the shortcut."""
        branch = shuffle(self.act1(self.bn1(self.conv1(features))), self.groups)
        branch = self.bn3(self.conv3(self.act2(self.bn2(self.conv2(branch)))))
        shortcut = self.shortcut(features)
        result: Tensor = self.act3(torch.cat([branch, shortcut], 1) if self.joined else branch + shortcut)
        return result


class ShuffleNetV1(StagedModel):
    """ShuffleNet with three groups and 240, 480 and 960 channels.

    The ReLU after the second convolution follows the benchmark; the paper has none there.

    Args:
        num_classes: Number of classes.
        normalization: Statistics of the images, see :class:`~limbeck_vision.models.stages.StagedModel`.

    Reference:
        Zhang et al., ShuffleNet, arXiv:1707.01083, table 1 (g = 3); the form for CIFAR is that of the benchmark of Tian
        et al., arXiv:1910.10699.
    """

    def __init__(self, *, num_classes: int, normalization: Statistics) -> None:
        channels, layers, infos = 24, [], []
        for index, (depth, width) in enumerate(((4, 240), (8, 480), (4, 960)), start=1):
            units = []
            for position in range(depth):
                grouped = index > 1 or position > 0
                unit = ShuffleUnitV1(
                    channels, width, 1 if position else 2, groups=3, grouped_input=grouped, last=position == depth - 1
                )
                units.append(unit)
                channels = width
            layers.append(stage(units))
            infos.append(StageInfo(width, 2**index, None))
        super().__init__(
            conv_bn_act(3, 24, 1),
            layers,
            infos,
            embedding=channels,
            num_classes=num_classes,
            normalization=normalization,
        )


class ShuffleUnitV2(nn.Module):
    """Half of the channels pass, the other half goes through 1x1, depthwise 3x3, 1x1; then a shuffle of both.

    With ``last`` the final ReLU is left to the stage, which may then act on both halves: the half that passes is
    non-negative already.
    """

    def __init__(self, channels: int, *, last: bool) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.act3 = nn.Identity() if last else nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Split, filter one half, join and shuffle."""
        passing, branch = features.chunk(2, dim=1)
        branch = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(branch)))))
        branch = self.act3(self.bn3(self.conv3(branch)))
        return shuffle(torch.cat([passing, branch], 1), 2)


class ShuffleDownUnitV2(nn.Module):
    """Halve the size: all channels go through two branches of stride 2, joined and shuffled."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, 2, 1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.act2 = nn.ReLU()
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.act3 = nn.ReLU()
        self.conv4 = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)
        self.act5 = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Run both branches, join and shuffle."""
        short = self.act2(self.bn2(self.conv2(self.bn1(self.conv1(features)))))
        long = self.bn4(self.conv4(self.act3(self.bn3(self.conv3(features)))))
        long = self.act5(self.bn5(self.conv5(long)))
        return shuffle(torch.cat([short, long], 1), 2)


class ShuffleNetV2(StagedModel):
    """ShuffleNet V2 of width 1: 116, 232 and 464 channels, and a last convolution of 1024 (``head``).

    ``layerK.preact`` is shuffled like ``layerK``, so that both agree channel by channel (RepDistiller gives its
    pre-activation features in the order before the shuffle).

    Args:
        num_classes: Number of classes.
        normalization: Statistics of the images, see :class:`~limbeck_vision.models.stages.StagedModel`.

    Reference:
        Ma et al., ShuffleNet V2, arXiv:1807.11164, table 5; the form for CIFAR is that of the benchmark of Tian et al.,
        arXiv:1910.10699.
    """

    def __init__(self, *, num_classes: int, normalization: Statistics) -> None:
        channels, layers, infos = 24, [], []
        for index, (depth, width) in enumerate(((3, 116), (7, 232), (3, 464)), start=1):
            units: list[nn.Module] = [ShuffleDownUnitV2(channels, width)]
            units += [ShuffleUnitV2(width, last=position == depth - 1) for position in range(depth)]
            layers.append(stage(units))
            infos.append(StageInfo(width, 2**index, None))
            channels = width
        super().__init__(
            conv_bn_act(3, 24, 1),
            layers,
            infos,
            embedding=1024,
            num_classes=num_classes,
            head=conv_bn_act(channels, 1024, 1),
            normalization=normalization,
        )


def shufflenet_v1(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ShuffleNetV1:
    """ShuffleNet V1 with three groups, the benchmark's "ShuffleNetV1"."""
    return ShuffleNetV1(num_classes=num_classes, normalization=normalization)


def shufflenet_v2(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> ShuffleNetV2:
    """ShuffleNet V2 of width 1, the benchmark's "ShuffleNetV2"."""
    return ShuffleNetV2(num_classes=num_classes, normalization=normalization)
