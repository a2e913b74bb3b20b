"""Residual networks with pre-activation for 32x32 images: the wide ones of CIFAR, and PreAct ResNet-18."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

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


class PreActResNet(StagedModel):
    """Residual network of pre-activation blocks; the first stage keeps the size and each later one halves it.

    In a pre-activation network the batch norm and ReLU between two stages open the second one. Here they close the
    first, which is the same function, since the block that follows reads only the activated features. ``layer1`` and
    ``layer1.preact`` then mean what they mean in every other model. The bare sum of a stage, which RepDistiller
    compares for methods on features, is the tap ``layer1.sum``.

    Args:
        depths: Blocks of each stage.
        stem_channels: Channels after the stem.
        widths: Channels of each stage; where they differ from those before, the shortcut is a 1x1 convolution.
        num_classes: Number of classes.
        normalization: Statistics of the images, see :class:`~limbeck_vision.models.stages.StagedModel`.

    Reference:
        He et al., Identity Mappings in Deep Residual Networks, arXiv:1603.05027, section 4.1.
    """

    def __init__(
        self,
        depths: Sequence[int],
        stem_channels: int,
        widths: Sequence[int],
        *,
        num_classes: int,
        normalization: Statistics,
    ) -> None:
        channels, layers, infos = stem_channels, [], []
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks: dict[str, nn.Module] = {}
            for position in range(depth):
                stride = 2 if index and not position else 1
                activated = bool(index) and not position
                blocks[str(position)] = PreActivationBlock(channels, width, stride, activated=activated)
                channels = width
            blocks["sum"] = nn.Identity()
            layers.append(stage(blocks, preact=nn.BatchNorm2d(width)))
            infos.append(StageInfo(width, 2**index, f"layer{index + 1}.preact"))
        stem = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, stem_channels, 3, 1, 1, bias=False)))
        super().__init__(stem, layers, infos, embedding=channels, num_classes=num_classes, normalization=normalization)
        init_convolutions(self)
        nn.init.zeros_(self.fc.bias)


class WideResNet(PreActResNet):
    """Wide residual network without dropout.

    Args:
        depth: Convolutional layers, 6 n + 4.
        widen: Factor on the channels 16, 32 and 64.
        num_classes: Number of classes.
        normalization: Statistics of the images, see :class:`~limbeck_vision.models.stages.StagedModel`.

    Reference:
        Zagoruyko and Komodakis, Wide Residual Networks, arXiv:1605.07146, table 1.
    """

    def __init__(self, depth: int, widen: int, *, num_classes: int, normalization: Statistics) -> None:
        blocks = (depth - 4) // 6
        widths = (16 * widen, 32 * widen, 64 * widen)
        super().__init__((blocks,) * 3, 16, widths, num_classes=num_classes, normalization=normalization)


def preact_resnet18(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> PreActResNet:
    """PreAct ResNet-18 for 32x32 images, with 64, 128, 256 and 512 channels (arXiv:1603.05027).

    It ends with a batch norm and a ReLU, as the paper has it; some CIFAR code leaves these out and adds them after the
    stem instead.
    """
    return PreActResNet((2,) * 4, 64, (64, 128, 256, 512), num_classes=num_classes, normalization=normalization)


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
