"""MobileNetV2 at half width for 32x32 images."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck_vision.models.normalization import CIFAR100_NORMALIZATION, Statistics
from limbeck_vision.models.stages import StagedModel, StageInfo, conv_bn_act, init_convolutions, stage

# Groups of inverted residuals: expansion, channels at full width, repeats, stride of the first.
_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# The groups of each stage: a stage ends where the benchmark reads features.
_STAGES = ((0, 1), (2,), (3, 4), (5, 6))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3 and linear 1x1 projection; added to the input where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.act2 = nn.ReLU()
        self.conv3 = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        """Expand, filter and project."""
        branch = self.act1(self.bn1(self.conv1(features)))
        branch = self.act2(self.bn2(self.conv2(branch)))
        projected: Tensor = self.bn3(self.conv3(branch))
        return features + projected if self.residual else projected


class MobileNetV2(StagedModel):
    """MobileNetV2 as the distillation benchmark uses it: a stem of stride 2 and ReLU where the paper has ReLU6.

    Bottlenecks are linear: a stage has no ReLU at its end, and ``layerK`` and ``layerK.preact`` are equal.

    Args:
        width: Factor on all channels but the last 1280.
        num_classes: Number of classes.
        normalization: Statistics of the images, see :class:`~limbeck_vision.models.stages.StagedModel`.

    Reference:
        Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, arXiv:1801.04381, table 2; strides and
        activation follow the benchmark of Tian et al., arXiv:1910.10699.
    """

    def __init__(self, width: float, *, num_classes: int, normalization: Statistics) -> None:
        channels = int(32 * width)
        stem = conv_bn_act(3, channels, 3, stride=2)
        total_stride, layers, infos = 2, [], []
        for index, groups in enumerate(_STAGES, start=1):
            blocks: list[nn.Module] = []
            for expansion, full_width, repeats, first_stride in (_GROUPS[group] for group in groups):
                total_stride *= first_stride
                for position in range(repeats):
                    stride = 1 if position else first_stride
                    blocks.append(InvertedResidual(channels, int(full_width * width), stride, expansion))
                    channels = int(full_width * width)
            layers.append(stage(blocks, act=False))
            infos.append(StageInfo(channels, total_stride, f"layer{index}.{len(blocks) - 1}.bn3"))
        head = conv_bn_act(channels, 1280, 1)
        super().__init__(
            stem, layers, infos, embedding=1280, num_classes=num_classes, head=head, normalization=normalization
        )
        init_convolutions(self)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)


def mobilenet_v2(num_classes: int = 100, *, normalization: Statistics = CIFAR100_NORMALIZATION) -> MobileNetV2:
    """MobileNetV2 of half width and expansion 6, the student called "MobileNetV2" in the benchmark's tables."""
    return MobileNetV2(0.5, num_classes=num_classes, normalization=normalization)
