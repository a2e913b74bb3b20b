"""The light heads of DSD: class scores at full resolution from the features of one level."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.errors import ShapeError

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class UpsamplingHead(nn.Module):
    """A 1x1 convolution to the classes, and transposed convolutions from them to full resolution.

    Without normalisation and activation. Where the stride is one power of two on all axes, a single transposed
    convolution of stride 2 is applied as often as needed, its weights shared; elsewhere (networks that spare thick
    slices) one transposed convolution does the whole step, kernel and stride being the level's stride.

    The transposed convolutions begin as nearest-neighbour upsampling, class by class. This is ours: under PyTorch's
    default, as released, each application shrinks the scores several times over, so that heads on deep levels learn
    late.

    Args:
        channels: Channels of the level.
        num_classes: Classes, the background among them.
        stride: Voxels of the input for each voxel of the level, by axis; its length says 1D, 2D or 3D.

    Raises:
        ValueError: if a number is below 1 or ``stride`` has no or more than three axes.

    Reference:
        Banerjee et al., arXiv:2306.03271: the bottleneck modules of figure 1; shapes as in the authors' code.

    >>> import torch
    >>> UpsamplingHead(8, 3, (4, 4, 4))(torch.zeros(1, 8, 2, 2, 2)).shape
    torch.Size([1, 3, 8, 8, 8])
    """

    def __init__(self, channels: int, num_classes: int, stride: Sequence[int]) -> None:
        super().__init__()
        stride = tuple(stride)
        if min(channels, num_classes, *stride) < 1 or len(stride) not in _CONVOLUTIONS:
            raise ValueError(
                "channels, num_classes and stride must be 1 or more, and stride have one to three axes, got "
                f"{channels}, {num_classes} and {stride}"
            )
        self.channels = channels
        self.stride = stride
        repeats = log2(stride[0])
        shared = len(set(stride)) == 1 and stride[0] > 1 and repeats.is_integer()
        self.repeats = int(repeats) if shared else 1
        step = (2,) * len(stride) if shared else stride
        self.project = _CONVOLUTIONS[len(stride)](channels, num_classes, 1)
        self.upsample = _TRANSPOSED[len(stride)](num_classes, num_classes, step, stride=step)
        self._start_as_nearest()

    def _start_as_nearest(self) -> None:
        """Let the transposed convolution begin as nearest-neighbour upsampling, class by class."""
        with torch.no_grad():
            self.upsample.weight.zero_()
            self.upsample.bias.zero_()
            for label in range(self.upsample.weight.shape[0]):
                self.upsample.weight[label, label] = 1.0

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``(N, num_classes, ...)`` of the features ``(N, channels, ...)``, ``stride`` times as large.

        Raises:
            ShapeError: if the features have another number of channels or axes.
        """
        if features.ndim != len(self.stride) + 2 or features.shape[1] != self.channels:
            raise ShapeError(
                f"UpsamplingHead expects features (N, {self.channels}, ...) with {len(self.stride)} spatial axes, got "
                f"{tuple(features.shape)}: give input_shape as the network is used"
            )
        logits: Tensor = self.project(features)
        for _ in range(self.repeats):
            logits = self.upsample(logits)
        return logits
