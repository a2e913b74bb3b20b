"""Wide residual networks for CIFAR."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from limbeck_vision.models.normalization import CIFAR100_NORMALIZATION, Statistics
from limbeck_vision.models.stages import StagedModel, StageInfo, init_convolutions, stage


class PreActivationBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; where they differ, a 1x1 convolution of the activated input is the
            shortcut.
        stride: Of the first convolution and the shortcut.
        activated: The input is normalised and activated already, by the end of the stage before.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, activated: bool) -> None:
        super().__init__()
        self.bn1 = nn.Identity() if activated else nn.BatchNorm2d(in_channels)
        self.act1 = nn.Identity() if activated else nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Add the branch to the shortcut."""
        active = self.act1(self.bn1(features))
        branch = self.conv2(self.act2(self.bn2(self.conv1(active))))
        residual: Tensor = features if self.shortcut is None else self.shortcut(active)
        result: Tensor = residual + branch
        return result


class WideResNet(StagedModel):
    """Wide residual network without dropout.

    In a pre-activation network the batch norm and ReLU between two stages open the second one. Here they close the
    first, which is the same function, since the block that follows reads only the activated features. ``layer1`` and
    ``layer1.preact`` then mean what they mean in every other model. The bare sum of a stage, which RepDistiller
    compares for methods on features, is the tap ``layer1.sum``.

    Args:
        depth: Convolutional layers, 6 n + 4.
        widen: Factor on the channels 16, 32 and 64.
        num_classes: Number of classes.
        normalization: Statistics of the images, see :class:`~limbeck_vision.models.stages.StagedModel`.

    Reference:
        Zagoruyko and Komodakis, Wide Residual Networks, arXiv:1605.07146, table 1.
    """

    def __init__(self, depth: int, widen: int, *, num_classes: int, normalization: Statistics) -> None:
        blocks_per_stage = (depth - 4) // 6
        channels, layers, infos = 16, [], []
        for index, width in enumerate((16 * widen, 32 * widen, 64 * widen)):
            blocks: dict[str, nn.Module] = {}
            for position in range(blocks_per_stage):
                stride = 2 if index and not position else 1
                activated = bool(index) and not position
                blocks[str(position)] = PreActivationBlock(channels, width, stride, activated=activated)
                channels = width
            blocks["sum"] = nn.Identity()
            layers.append(stage(blocks, preact=nn.BatchNorm2d(width)))
            infos.append(StageInfo(width, 2**index, f"layer{index + 1}.preact"))
        stem = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 16, 3, 1, 1, bias=False)))
        super().__init__(stem, layers, infos, embedding=channels, num_classes=num_classes, normalization=normalization)
        init_convolutions(self)
        nn.init.zeros_(self.fc.bias)


def wrn_16_1(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> WideResNet:
    """WRN-16-1: 16 layers with 16, 32 and 64 channels (arXiv:1605.07146)."""
    return WideResNet(16, 1, num_classes=num_classes, normalization=normalization)


def wrn_16_2(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> WideResNet:
    """WRN-16-2: 16 layers with 32, 64 and 128 channels."""
    return WideResNet(16, 2, num_classes=num_classes, normalization=normalization)


def wrn_40_1(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> WideResNet:
    """WRN-40-1: 40 layers with 16, 32 and 64 channels."""
    return WideResNet(40, 1, num_classes=num_classes, normalization=normalization)


def wrn_40_2(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> WideResNet:
    """WRN-40-2: 40 layers with 32, 64 and 128 channels."""
    return WideResNet(40, 2, num_classes=num_classes, normalization=normalization)
