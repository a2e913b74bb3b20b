"""Where the levels of a U-shaped network are: known for MONAI's, to be named for others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.networks.nets import UNETR, BasicUNet, DynUNet, SegResNet, SwinUNETR, UNet, VNet
from torch import Tensor, nn

from limbeck_core.errors import MatchError, ShapeError
from limbeck_core.tap import Recorder, Tap, as_tap
from limbeck_medical.sizes import next_good_sides

Taps = Sequence[str | Tap]


@dataclass(frozen=True)
class Level:
    """One level of a network.

    Args:
        tap: Where its features are read.
        channels: Their channels.
        stride: Voxels of the input for each of its voxels, by axis.
    """

    tap: Tap
    channels: int
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Levels:
    """The levels of a network that get heads, in each branch from fine to coarse.

    Args:
        encoder: E1, E2, ...; the last one teaches the others.
        decoder: D1, D2, ...; the first one, next to the output, teaches the others. The bottom of the network is the
            last of them.
        num_classes: Channels of the network's output.
    """

    encoder: tuple[Level, ...]
    decoder: tuple[Level, ...]
    num_classes: int


def known_taps(network: nn.Module) -> tuple[Taps, Taps]:
    """Return the taps of the encoder's and the decoder's levels, fine to coarse.

    Known are MONAI's UNet, DynUNet, SwinUNETR, UNETR, SegResNet, VNet and BasicUNet. Where the paper's code has the
    network (DynUNet as nnU-Net, SwinUNETR, UNETR, V-Net), the places are its own. In the others they follow DynUNet:
    the bottom belongs to the decoder, and the last decoder level, which the output stands on, has no head.

    Args:
        network: The network.

    Returns:
        Taps of the encoder and of the decoder.

    Raises:
        MatchError: if the network is of another kind, saying how to name its taps.
    """
    for kind, find in _KNOWN.items():
        if isinstance(network, kind):
            return find(network)
    known = ", ".join(kind.__name__ for kind in _KNOWN)
    raise MatchError(
        f"the levels of {type(network).__name__} are not known (known are {known}): name them, fine to coarse, with "
        "encoder=[...] and decoder=[...], each a tap such as 'down_1'"
    )


def find_levels(
    network: nn.Module, input_shape: Sequence[int], encoder: Taps | None = None, decoder: Taps | None = None
) -> Levels:
    """Run the network's shapes, without values, and return its levels with their channels and strides.

    Args:
        network: The network; it is copied without its weights and stays as it is.
        input_shape: Channels and sides of the crops it is trained on, for example ``(1, 32, 32, 32)``.
        encoder: Taps of the encoder's levels, fine to coarse; an empty sequence leaves the branch out. Default:
            :func:`known_taps`.
        decoder: The same of the decoder.

    Raises:
        MatchError: if the network is unknown and no taps are given, a branch has one level only, or the output is not
            one tensor of the size of the input.
        ShapeError: if the network refuses the input, or a side is no multiple of a level's.
        TapError: if a tap names a place that does not exist or is not run.
    """
    shape = tuple(input_shape)
    if encoder is None or decoder is None:
        found = known_taps(network)
        encoder = found[0] if encoder is None else encoder
        decoder = found[1] if decoder is None else decoder
    branches = {"encoder": [as_tap(tap) for tap in encoder], "decoder": [as_tap(tap) for tap in decoder]}
    for name, taps in branches.items():
        if len(taps) == 1:
            raise MatchError(
                f"the {name} has one level with a head, and self-distillation needs two: name more taps, use a deeper "
                f"network, or leave the branch out with {name}=()"
            )
    if not any(branches.values()):
        raise MatchError("neither encoder nor decoder has a level with a head: name the taps of one of them")
    shapes, output = _trace(network, shape, [tap for taps in branches.values() for tap in taps])
    if tuple(output.shape[2:]) != shape[1:] or output.ndim != len(shape) + 1:
        raise MatchError(
            f"{type(network).__name__} gives {tuple(output.shape)} for an input {(1, *shape)}: DSD needs class scores "
            "(N, K, ...) of the size of the input (deep supervision of the network's own is to be switched off)"
        )
    levels = {name: tuple(_level(tap, shapes[tap], shape) for tap in taps) for name, taps in branches.items()}
    return Levels(levels["encoder"], levels["decoder"], int(output.shape[1]))


def _trace(network: nn.Module, shape: tuple[int, ...], taps: list[Tap]) -> tuple[dict[Tap, tuple[int, ...]], Tensor]:
    twin = copy.deepcopy(network).to("meta").eval()
    recorder = Recorder("student", taps)
    recorder.attach(twin)
    try:
        with torch.device("meta"), torch.no_grad(), recorder.recording():
            output = twin(torch.empty(1, *shape))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        recorder.detach()
        good = next_good_sides(network, shape)
        raise ShapeError(
            f"{type(network).__name__} does not take an input of shape {(1, *shape)} ({error}): give input_shape as "
            "(channels, sides of the crop), sides divisible by the network's deepest stride"
            + ("" if good is None else f"; the next that it takes are {' x '.join(map(str, good))}")
        ) from error
    if not isinstance(output, Tensor):
        raise MatchError(f"{type(network).__name__} returns a {type(output).__name__}, DSD needs one tensor of scores")
    return {tap: tuple(recorder.read(tap, twin).shape) for tap in taps}, output


def _level(tap: Tap, features: tuple[int, ...], shape: tuple[int, ...]) -> Level:
    sides = features[2:]
    if len(features) != len(shape) + 1 or any(side % own for side, own in zip(shape[1:], sides, strict=True)):
        raise ShapeError(
            f"tap '{tap}' has features {features} for an input {(1, *shape)}: a head needs features (N, C, ...) whose "
            "sides divide those of the input; choose another crop, or tap maps instead of tokens"
        )
    return Level(tap, features[1], tuple(side // own for side, own in zip(shape[1:], sides, strict=True)))


def _unet(network: UNet) -> tuple[Taps, Taps]:
    """Down path, skip connection and up path are numbered 0, 1 and 2, one inside the other."""
    block: Any = network.model
    path, downs, ups = "model", [], []
    while isinstance(block, nn.Sequential) and len(block) == 3 and hasattr(block[1], "submodule"):
        downs.append(f"{path}.0")
        ups.append(f"{path}.2")
        block, path = block[1].submodule, f"{path}.1.submodule"
    # the deepest down path has the resolution of the bottom, as nnU-Net's bottleneck
    return downs[:-1], [*ups[1:], path]


def _dynunet(network: DynUNet) -> tuple[Taps, Taps]:
    downs = [f"downsamples.{index}" for index in range(len(network.downsamples))]
    ups = [f"upsamples.{index}" for index in reversed(range(len(network.upsamples) - 1))]
    return ["input_block", *downs], [*ups, "bottleneck"]


def _swin_unetr(network: SwinUNETR) -> tuple[Taps, Taps]:
    return [f"encoder{level}" for level in range(1, 5)], [f"decoder{level}" for level in range(2, 6)]


def _unetr(network: UNETR) -> tuple[Taps, Taps]:
    decoder = [f"decoder{level}" for level in range(3, 6)]
    return [f"encoder{level}" for level in range(1, 5)], [*decoder, Tap("decoder5", at="input")]


def _segresnet(network: SegResNet) -> tuple[Taps, Taps]:
    downs, ups = len(network.down_layers), len(network.up_layers)
    return (
        [f"down_layers.{index}" for index in range(downs - 1)],
        [*(f"up_layers.{index}" for index in reversed(range(ups - 1))), f"down_layers.{downs - 1}"],
    )


def _vnet(network: VNet) -> tuple[Taps, Taps]:
    return ["in_tr", "down_tr32", "down_tr64", "down_tr128"], ["up_tr64", "up_tr128", "up_tr256", "down_tr256"]


def _basic_unet(network: BasicUNet) -> tuple[Taps, Taps]:
    return ["conv_0", "down_1", "down_2", "down_3"], ["upcat_2", "upcat_3", "upcat_4", "down_4"]


_KNOWN: dict[type[nn.Module], Callable[..., tuple[Taps, Taps]]] = {
    UNet: _unet,
    DynUNet: _dynunet,
    SwinUNETR: _swin_unetr,
    UNETR: _unetr,
    SegResNet: _segresnet,
    VNet: _vnet,
    BasicUNet: _basic_unet,
}
