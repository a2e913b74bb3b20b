"""PP-HGNetV2, the backbone of D-FINE: cheap plain convolutions whose outputs are all kept and mixed by 1x1 ones.

Names of parameters and buffers are those of the released D-FINE checkpoints.

Reference: the backbone of RT-DETR (Lv et al., DETRs Beat YOLOs on Real-time Object Detection, arXiv:2304.08069) in its
second version, as D-FINE uses it (Peng et al., arXiv:2410.13842).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.ops import FrozenBatchNorm2d

BackboneName = Literal["B0", "B1", "B2", "B3", "B4", "B5", "B6"]
STRIDES = (4, 8, 16, 32)  # of the four stages


class _Stage(NamedTuple):
    in_channels: int
    mid_channels: int
    out_channels: int
    blocks: int
    downsample: bool
    light: bool
    kernel_size: int
    layers: int


_STEMS: dict[BackboneName, tuple[int, int]] = {
    "B0": (16, 16),
    "B1": (24, 32),
    "B2": (24, 32),
    "B3": (24, 32),
    "B4": (32, 48),
    "B5": (32, 64),
    "B6": (48, 96),
}


def _stages(layers: int, *rows: tuple[int, int, int, int]) -> tuple[_Stage, ...]:
    """Four stages: the first keeps the resolution, the last two use light layers with 5x5 kernels."""
    return tuple(_Stage(*row, i > 0, i > 1, 5 if i > 1 else 3, layers) for i, row in enumerate(rows))


_STAGES: dict[BackboneName, tuple[_Stage, ...]] = {
    "B0": _stages(3, (16, 16, 64, 1), (64, 32, 256, 1), (256, 64, 512, 2), (512, 128, 1024, 1)),
    "B1": _stages(3, (32, 32, 64, 1), (64, 48, 256, 1), (256, 96, 512, 2), (512, 192, 1024, 1)),
    "B2": _stages(4, (32, 32, 96, 1), (96, 64, 384, 1), (384, 128, 768, 3), (768, 256, 1536, 1)),
    "B3": _stages(5, (32, 32, 128, 1), (128, 64, 512, 1), (512, 128, 1024, 3), (1024, 256, 2048, 1)),
    "B4": _stages(6, (48, 48, 128, 1), (128, 96, 512, 1), (512, 192, 1024, 3), (1024, 384, 2048, 1)),
    "B5": _stages(6, (64, 64, 128, 1), (128, 128, 512, 2), (512, 256, 1024, 5), (1024, 512, 2048, 2)),
    "B6": _stages(6, (96, 96, 192, 2), (192, 192, 512, 3), (512, 384, 1024, 6), (1024, 768, 2048, 3)),
}


class LearnableAffine(nn.Module):
    """One learnable scale and one learnable shift for a whole feature map, 1 and 0 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """Scale and shift; any shape."""
        return self.scale * features + self.bias


class ConvBNAct(nn.Module):
    """Convolution without bias, BatchNorm, ReLU, and after the ReLU the learnable affine of the small models.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        kernel_size: Side of the kernel; the padding is ``(kernel_size - 1) // 2``.
        stride: Stride.
        groups: Groups of the convolution.
        act: Whether there is a ReLU.
        affine: Whether a :class:`LearnableAffine` follows the ReLU; without a ReLU there is none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
        affine: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, (kernel_size - 1) // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU() if act else nn.Identity()
        self.lab = LearnableAffine() if act and affine else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H', W')``."""
        out: Tensor = self.lab(self.act(self.bn(self.conv(features))))
        return out


class LightConvBNAct(nn.Module):
    """A 1x1 convolution without activation, then a depthwise one with it.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        kernel_size: Side of the depthwise kernel.
        affine: As for :class:`ConvBNAct`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, affine: bool = False) -> None:
        super().__init__()
        self.conv1 = ConvBNAct(in_channels, out_channels, 1, act=False)
        self.conv2 = ConvBNAct(out_channels, out_channels, kernel_size, groups=out_channels, affine=affine)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H, W)``."""
        out: Tensor = self.conv2(self.conv1(features))
        return out


class Stem(nn.Module):
    """Image to features of stride 4, half of them by convolutions and half by pooling.

    Args:
        in_channels: Channels of the image.
        mid_channels: Width inside.
        out_channels: Width of the output.
        affine: As for :class:`ConvBNAct`.
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, *, affine: bool = False) -> None:
        super().__init__()
        self.stem1 = ConvBNAct(in_channels, mid_channels, 3, stride=2, affine=affine)
        self.stem2a = ConvBNAct(mid_channels, mid_channels // 2, 2, affine=affine)
        self.stem2b = ConvBNAct(mid_channels // 2, mid_channels, 2, affine=affine)
        self.stem3 = ConvBNAct(2 * mid_channels, mid_channels, 3, stride=2, affine=affine)
        self.stem4 = ConvBNAct(mid_channels, out_channels, 1, affine=affine)
        self.pool = nn.MaxPool2d(2, stride=1, ceil_mode=True)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', ceil(H / 4), ceil(W / 4))``."""
        features = pad(self.stem1(images), (0, 1, 0, 1))
        detailed = self.stem2b(pad(self.stem2a(features), (0, 1, 0, 1)))
        out: Tensor = self.stem4(self.stem3(torch.cat([self.pool(features), detailed], dim=1)))
        return out


class HGBlock(nn.Module):
    """Layers in a row; their input and all their outputs are mixed by two 1x1 convolutions.

    Args:
        in_channels: Width of the input.
        mid_channels: Width of each layer.
        out_channels: Width of the output.
        layers: Number of layers.
        kernel_size: Side of their kernels.
        light: Whether they are :class:`LightConvBNAct`.
        residual: Whether the input is added to the output.
        affine: As for :class:`ConvBNAct`.
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        layers: int,
        kernel_size: int,
        light: bool,
        residual: bool,
        affine: bool,
    ) -> None:
        super().__init__()
        self.residual = residual
        kind = LightConvBNAct if light else ConvBNAct
        self.layers = nn.ModuleList(
            kind(in_channels if i == 0 else mid_channels, mid_channels, kernel_size, affine=affine)
            for i in range(layers)
        )
        self.aggregation = nn.Sequential(
            ConvBNAct(in_channels + layers * mid_channels, out_channels // 2, 1, affine=affine),
            ConvBNAct(out_channels // 2, out_channels, 1, affine=affine),
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H, W)``."""
        kept = [features]
        for layer in self.layers:
            kept.append(layer(kept[-1]))
        out: Tensor = self.aggregation(torch.cat(kept, dim=1))
        return out + features if self.residual else out


class HGStage(nn.Module):
    """Blocks of one resolution, after a depthwise convolution of stride 2 where the stage halves it."""

    def __init__(self, shape: _Stage, *, affine: bool) -> None:
        super().__init__()
        self.downsample = (
            ConvBNAct(shape.in_channels, shape.in_channels, 3, stride=2, groups=shape.in_channels, act=False)
            if shape.downsample
            else nn.Identity()
        )
        self.blocks = nn.Sequential(
            *(
                HGBlock(
                    shape.in_channels if i == 0 else shape.out_channels,
                    shape.mid_channels,
                    shape.out_channels,
                    layers=shape.layers,
                    kernel_size=shape.kernel_size,
                    light=shape.light,
                    residual=i > 0,
                    affine=affine,
                )
                for i in range(shape.blocks)
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H', W')``."""
        out: Tensor = self.blocks(self.downsample(features))
        return out


class HGNetV2(nn.Module):
    """PP-HGNetV2.

    Args:
        name: Size, ``"B0"`` to ``"B6"``.
        out_stages: Stages whose outputs are returned, of 0 to 3 with strides 4, 8, 16 and 32.
        affine: Whether ReLUs are followed by a :class:`LearnableAffine`, as in D-FINE-N, -S and -M.
        freeze_stem: Whether the stem gets no gradient, as in D-FINE-L and -X.
        freeze_norm: Whether every BatchNorm keeps its statistics, scale and shift, as in D-FINE-L and -X. These layers
            then have no ``num_batches_tracked`` in the state dict, and drop it from what is loaded.

    Raises:
        ValueError: if there is no such size or stage.
    """

    def __init__(
        self,
        name: BackboneName,
        *,
        out_stages: Sequence[int] = (1, 2, 3),
        affine: bool = False,
        freeze_stem: bool = False,
        freeze_norm: bool = False,
    ) -> None:
        super().__init__()
        if name not in _STAGES:
            raise ValueError(f"there is no HGNetV2 {name!r}: the sizes are {', '.join(get_args(BackboneName))}")
        if not out_stages or not set(out_stages) <= set(range(len(STRIDES))):
            raise ValueError(f"out_stages must name some of the stages 0 to {len(STRIDES) - 1}, got {out_stages!r}")
        self.out_stages = tuple(sorted(out_stages))
        self.out_channels = [_STAGES[name][i].out_channels for i in self.out_stages]
        self.out_strides = [STRIDES[i] for i in self.out_stages]
        self.stem = Stem(3, *_STEMS[name], affine=affine)
        self.stages = nn.ModuleList(HGStage(shape, affine=affine) for shape in _STAGES[name])
        if freeze_stem:
            self.stem.requires_grad_(False)
        if freeze_norm:
            _freeze_norms(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of ``out_stages``, fine to coarse.

        Args:
            images: RGB in [0, 1] without further normalisation, shape ``(B, 3, H, W)``.

        Returns: Maps ``(B, C_i, ceil(H / stride_i), ceil(W / stride_i))``.
        """
        features = self.stem(images)
        maps = []
        for i, stage in enumerate(self.stages):
            features = stage(features)
            if i in self.out_stages:
                maps.append(features)
        return maps


def _freeze_norms(module: nn.Module) -> None:
    children: Iterable[tuple[str, nn.Module]] = list(module.named_children())
    for name, child in children:
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=child.eps))
        else:
            _freeze_norms(child)
