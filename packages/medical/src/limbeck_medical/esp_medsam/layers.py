"""Pieces that the encoders, the prompt generator and the decoder of ESP-MedSAM share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from limbeck_core.errors import ShapeError, TargetError


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of a map ``(N, C, H, W)``, as in SAM.

    Args:
        channels: C.
        epsilon: Added to the variance. SAM: 1e-6.
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.epsilon = epsilon

    def forward(self, features: Tensor) -> Tensor:
        """Normalise ``(N, C, H, W)``."""
        centred = features - features.mean(1, keepdim=True)
        scaled = centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + self.epsilon)
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


def neck(channels: int, embed_dim: int) -> nn.Sequential:
    """Return SAM's neck: 1x1 and 3x3 convolution without bias, each with a layer normalisation."""
    return nn.Sequential(
        nn.Conv2d(channels, embed_dim, 1, bias=False),
        LayerNorm2d(embed_dim),
        nn.Conv2d(embed_dim, embed_dim, 3, padding=1, bias=False),
        LayerNorm2d(embed_dim),
    )


@dataclass(frozen=True)
class Routing:
    """Which sample of a batch goes through which modality controller.

    Args:
        index: Controller of each sample, ``(N,)``.
        groups: Each controller that occurs, with the samples of its group.
    """

    index: Tensor
    groups: tuple[tuple[int, Tensor], ...]

    def apply(self, modules: Sequence[Callable[[Tensor], Tensor]] | nn.ModuleList, features: Tensor) -> Tensor:
        """Run each sample of ``(N, ...)`` through the module of its controller."""
        if len(self.groups) == 1:
            alone: Tensor = modules[self.groups[0][0]](features)
            return alone
        parts = torch.cat([modules[number](features[samples]) for number, samples in self.groups])
        return parts[torch.argsort(torch.cat([samples for _, samples in self.groups]))]


def as_modality(modality: int | Tensor, batch: int, count: int, device: torch.device) -> Tensor:
    """Return the modality of each sample, ``(N,)``.

    Args:
        modality: One number for the whole batch, or one for each sample, ``(N,)`` or ``(N, 1)``.
        batch: N.
        count: Number of modalities.
        device: Where the result lies.

    Raises:
        ShapeError: if there are not as many numbers as samples.
        TargetError: if a number is not from 0 to ``count - 1``.
    """
    index = torch.as_tensor(modality, device=device).long().flatten()
    if index.numel() == 1:
        index = index.expand(batch)
    if index.numel() != batch:
        raise ShapeError(f"modality must be one number, or one for each of the {batch} samples, got {index.numel()}")
    if batch and (int(index.min()) < 0 or int(index.max()) >= count):
        raise TargetError(
            f"modality must be from 0 to {count - 1}, got {int(index.min())} to {int(index.max())}: build the model "
            "with as many modalities as the data have, in their order"
        )
    return index


def route(modality: int | Tensor, batch: int, controllers: int, device: torch.device) -> Routing | None:
    """Return the routing through ``controllers`` controllers; ``None`` if there are none.

    A single controller takes every sample, whatever its modality: it is the one that was chosen for these images.

    Args:
        modality: As in :func:`as_modality`.
        batch: Number of samples.
        controllers: Number of controllers.
        device: Of the samples.

    Raises:
        ShapeError, TargetError: as :func:`as_modality`.
    """
    if controllers == 0:
        return None
    index = as_modality(0 if controllers == 1 else modality, batch, controllers, device)
    groups = tuple((number, (index == number).nonzero()[:, 0]) for number in sorted(set(index.tolist())))
    return Routing(index, groups or ((0, index),))


def to_windows(features: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut ``(N, H, W, C)`` into square windows, padded with zeros at the far sides.

    Returns:
        Windows ``(N * count, window, window, C)``, those of one sample together, and the padded height and width.
    """
    batch, height, width, channels = features.shape
    below, right = -height % window, -width % window
    if below or right:
        features = pad(features, (0, 0, 0, right, 0, below))
    padded = (height + below, width + right)
    cut = features.reshape(batch, padded[0] // window, window, padded[1] // window, window, channels)
    return cut.transpose(2, 3).reshape(-1, window, window, channels), padded


def from_windows(windows: Tensor, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Undo :func:`to_windows`.

    Args:
        windows: Shape ``(N * count, window, window, C)``.
        padded: Height and width with padding.
        size: Height and width without.

    Returns:
        Shape ``(N, H, W, C)``.
    """
    window, channels = windows.shape[1], windows.shape[3]
    rows, columns = padded[0] // window, padded[1] // window
    joined = windows.reshape(-1, rows, columns, window, window, channels).transpose(2, 3)
    return joined.reshape(-1, *padded, channels)[:, : size[0], : size[1]].contiguous()


def check_images(images: Tensor, size: int) -> None:
    """Refuse anything but ``(N, 3, size, size)``.

    Raises:
        ShapeError: naming the shape.
    """
    if images.ndim != 4 or images.shape[1:] != (3, size, size):
        raise ShapeError(
            f"images must be (N, 3, {size}, {size}), got {tuple(images.shape)}: resize them, or build the model with "
            "another image_size"
        )


def keep_controllers_alone(encoder: nn.Module) -> None:
    """Turn gradients off for everything but the parameters of modality controllers (``med_`` in their names)."""
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("med_" in name)
