"""Encoders of inertial signals: a convolutional net, a transformer, and any pretrained encoder of single channels.

All take a window ``(N, C, L)`` of C channels (three of the accelerometer, three of the gyroscope) and L samples, and
return embeddings ``(N, D)``; ``out_dim`` is D. Scaling is theirs: windows come in the units of the sensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from limbeck_core.build import build
from limbeck_core.checks import check_floating, check_ndim
from limbeck_core.errors import ShapeError
from limbeck_core.weights import load_weights

Reduction = Literal["concat", "mean"]


class IMUConvNet(nn.Module):
    """Strided 1D convolutions, batch norm and ReLU, then the mean over time.

    The first layer standardises each channel by running statistics, so that units do not matter.

    Args:
        channels: Number C of channels.
        widths: Channels after each convolution, each of stride 2; the last is the width of the embedding.
        kernel: Samples under a convolution, odd.

    Raises:
        ValueError: if an argument is out of range.
        ShapeError: when called on another shape, or on windows too short for the strides.
    """

    def __init__(self, channels: int = 6, *, widths: Sequence[int] = (64, 128, 256), kernel: int = 7) -> None:
        super().__init__()
        if channels < 1 or not widths or min(widths) < 1 or kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                f"channels and widths must be 1 or more and kernel odd, got {channels}, {tuple(widths)} and {kernel}"
            )
        self.channels, self.out_dim = channels, widths[-1]
        self.scale = nn.BatchNorm1d(channels, affine=False)
        blocks: list[nn.Module] = []
        for below, above in zip((channels, *widths[:-1]), widths, strict=True):
            blocks += [
                nn.Conv1d(below, above, kernel, stride=2, padding=kernel // 2, bias=False),
                nn.BatchNorm1d(above),
                nn.ReLU(),
            ]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, windows: Tensor) -> Tensor:
        """Return embeddings ``(N, D)`` of windows ``(N, C, L)``."""
        _check_windows(windows, self.channels)
        features: Tensor = self.blocks(self.scale(windows))
        return features.mean(2)


class IMUTransformer(nn.Module):
    """Patches of time as tokens, learned positions, a pre-norm transformer, the mean over tokens.

    Positions are interpolated for windows of another length than the one it was built for.

    Args:
        channels: Number C of channels.
        length: Samples L of a window.
        patch: Samples a token; a rest at the end of the window is left out.
        dim: Width of a token and of the embedding.
        depth: Number of layers.
        heads: Number of attention heads; it divides ``dim``.
        dropout: Share of activations that training drops.

    Raises:
        ValueError: if an argument is out of range.
        ShapeError: when called on another shape, or on a window shorter than a patch.
    """

    def __init__(
        self,
        channels: int = 6,
        *,
        length: int = 1000,
        patch: int = 20,
        dim: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if channels < 1 or patch < 1 or length < patch or dim % heads or depth < 1:
            raise ValueError(
                "channels, patch and depth must be 1 or more, length at least a patch, and heads must divide dim, got "
                f"channels={channels}, length={length}, patch={patch}, dim={dim}, depth={depth}, heads={heads}"
            )
        self.channels, self.patch, self.out_dim = channels, patch, dim
        self.scale = nn.BatchNorm1d(channels, affine=False)
        self.embed = nn.Conv1d(channels, dim, patch, stride=patch)
        self.positions = nn.Parameter(torch.randn(1, dim, length // patch) * 0.02)
        layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(dim), enable_nested_tensor=False)

    def forward(self, windows: Tensor) -> Tensor:
        """Return embeddings ``(N, D)`` of windows ``(N, C, L)``."""
        _check_windows(windows, self.channels)
        if windows.shape[2] < self.patch:
            raise ShapeError(f"windows must have {self.patch} samples (a patch) or more, got {tuple(windows.shape)}")
        tokens = self.embed(self.scale(windows))
        positions: Tensor = self.positions
        if tokens.shape[2] != positions.shape[2]:
            positions = interpolate(positions, size=tokens.shape[2], mode="linear", align_corners=False)
        encoded: Tensor = self.layers((tokens + positions).transpose(1, 2))
        return encoded.mean(1)


class ChannelwiseEncoder(nn.Module):
    """Any encoder of one time series, such as a pretrained foundation model, applied to each channel by itself.

    Each channel is resampled to ``length`` linearly and encoded alone. Joined embeddings know which channel said what;
    the published tables are 1 to 7 points lower for their mean.

    Args:
        encoder: Takes ``(N, 1, length)`` and returns ``(N, width)``, or a config of it. Mantis is called so; for
            PatchTST see :func:`~limbeck_audiovideo.comodo.patchtst`.
        width: Numbers the encoder returns for a channel.
        channels: Number C of channels.
        length: Samples that the encoder wants; ``None`` leaves the window as it is.
        reduction: ``"concat"`` joins the channels' embeddings (D = C * width), ``"mean"`` averages them (D = width).

    Raises:
        ValueError: if an argument is out of range.
        ShapeError: when called on another shape, or the encoder returns another one.
    """

    def __init__(
        self,
        encoder: nn.Module | Mapping[str, Any],
        width: int,
        *,
        channels: int = 6,
        length: int | None = 512,
        reduction: Reduction = "concat",
    ) -> None:
        super().__init__()
        if width < 1 or channels < 1 or (length is not None and length < 1):
            raise ValueError(f"width, channels and length must be 1 or more, got {width}, {channels} and {length}")
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction must be 'concat' or 'mean', got {reduction!r}")
        self.encoder: nn.Module = build(encoder)
        self.width, self.channels, self.length, self.reduction = width, channels, length, reduction
        self.out_dim = width * channels if reduction == "concat" else width

    def forward(self, windows: Tensor) -> Tensor:
        """Return embeddings ``(N, D)`` of windows ``(N, C, L)``."""
        _check_windows(windows, self.channels)
        if self.length is not None and windows.shape[2] != self.length:
            windows = interpolate(windows, size=self.length, mode="linear", align_corners=False)
        encoded: Tensor = self.encoder(windows.flatten(0, 1).unsqueeze(1))
        if encoded.shape != (windows.shape[0] * self.channels, self.width):
            raise ShapeError(
                f"the encoder must return {self.width} numbers a channel, shape "
                f"{(windows.shape[0] * self.channels, self.width)}, got {tuple(encoded.shape)}: set width, or pool it"
            )
        by_channel = encoded.reshape(-1, self.channels, self.width)
        return by_channel.flatten(1) if self.reduction == "concat" else by_channel.mean(1)


class IMUClassifier(nn.Module):
    """An encoder with a linear classifier: supervised training, or fine-tuning of a pretrained encoder.

    Args:
        encoder: The encoder, or its config; it has ``out_dim``.
        num_classes: Number of classes.
        weights: ``student.pth`` of a pretrained encoder; ``None`` trains from random weights.

    Raises:
        ValueError: if ``num_classes`` is below 2.
        CheckpointError: if the weights do not fit.
    """

    def __init__(
        self, encoder: nn.Module | Mapping[str, Any], num_classes: int, *, weights: str | Path | None = None
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be 2 or more, got {num_classes}")
        self.encoder: nn.Module = build(encoder)
        if weights is not None and torch.get_default_device().type != "meta":
            load_weights(self.encoder, Path(weights), partial=False)
        self.fc = nn.Linear(int(self.encoder.out_dim), num_classes)

    def forward(self, windows: Tensor) -> Tensor:
        """Return class scores ``(N, num_classes)`` of windows ``(N, C, L)``."""
        scores: Tensor = self.fc(self.encoder(windows))
        return scores


def _check_windows(windows: Tensor, channels: int) -> None:
    check_ndim(windows, "windows", "(N, C, L)", at_least=3, at_most=3)
    check_floating(windows, "windows")
    if windows.shape[1] != channels:
        raise ShapeError(
            f"windows must have {channels} channels on axis 1, got shape {tuple(windows.shape)}: name the channels of "
            "the data set, or set channels of the encoder"
        )


__all__ = ["ChannelwiseEncoder", "IMUClassifier", "IMUConvNet", "IMUTransformer"]
