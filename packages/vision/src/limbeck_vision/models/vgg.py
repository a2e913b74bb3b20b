"""VGG with batch norm for CIFAR, its fully connected layers replaced by pooling and one linear classifier."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from limbeck_vision.models.normalization import CIFAR100_NORMALIZATION, Statistics
from limbeck_vision.models.stages import StagedModel, StageInfo, conv_bn_act, init_convolutions, stage


class VGG(StagedModel):
    """Plain 3x3 convolutions with batch norm in five groups of 64, 128, 256, 512 and 512 channels.

    The first group is ``stem``. A max pooling opens ``layer1`` to ``layer3``; on 32x32 images the last group,
    ``layer4``, keeps the size, as in the benchmark.

    Args:
        depths: Convolutions of each group.
        num_classes: Number of classes.
        normalization: Statistics of the images, see :class:`~limbeck_vision.models.stages.StagedModel`.

    Reference:
        Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, arXiv:1409.1556,
        table 1; the form for CIFAR is that of the distillation benchmark of Tian et al., arXiv:1910.10699.
    """

    def __init__(self, depths: Sequence[int], *, num_classes: int, normalization: Statistics) -> None:
        channels, groups, infos = 3, [], []
        for index, (depth, width) in enumerate(zip(depths, (64, 128, 256, 512, 512), strict=True)):
            blocks: dict[str, nn.Module] = {}
            if 1 <= index <= 3:
                blocks["downsample"] = nn.MaxPool2d(2)
            for position in range(depth):
                last = position == depth - 1
                blocks[str(position)] = conv_bn_act(channels, width, 3, bias=True, act=not last)
                channels = width
            groups.append(stage(blocks))
            if index:
                infos.append(StageInfo(width, 2 ** min(index, 3), f"layer{index}.{depth - 1}.bn"))
        super().__init__(
            groups[0], groups[1:], infos, embedding=channels, num_classes=num_classes, normalization=normalization
        )
        init_convolutions(self)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)


def vgg8(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> VGG:
    """VGG-8 with batch norm: one convolution in each group (the benchmark's own, arXiv:1910.10699)."""
    return VGG((1, 1, 1, 1, 1), num_classes=num_classes, normalization=normalization)


def vgg11(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> VGG:
    """VGG-11 with batch norm (configuration A of arXiv:1409.1556)."""
    return VGG((1, 1, 2, 2, 2), num_classes=num_classes, normalization=normalization)


def vgg13(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> VGG:
    """VGG-13 with batch norm (configuration B)."""
    return VGG((2, 2, 2, 2, 2), num_classes=num_classes, normalization=normalization)


def vgg16(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> VGG:
    """VGG-16 with batch norm (configuration D)."""
    return VGG((2, 2, 3, 3, 3), num_classes=num_classes, normalization=normalization)


def vgg19(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> VGG:
    """VGG-19 with batch norm (configuration E)."""
    return VGG((2, 2, 4, 4, 4), num_classes=num_classes, normalization=normalization)
