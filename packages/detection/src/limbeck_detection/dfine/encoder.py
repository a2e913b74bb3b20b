"""D-FINE's hybrid encoder: attention on the coarsest map, then a feature pyramid down and up again.

Names of parameters and buffers are those of the released D-FINE checkpoints.

Reference: Lv et al., DETRs Beat YOLOs on Real-time Object Detection, arXiv:2304.08069, section 4.2 (hybrid encoder),
with the GELAN blocks of Wang et al., YOLOv9, arXiv:2402.13616, as D-FINE combines them (Peng et al., arXiv:2410.13842).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate

from limbeck_core.errors import ShapeError


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm, and SiLU if asked for.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        kernel_size: Side of the kernel; the padding is ``(kernel_size - 1) // 2``.
        stride: Stride.
        groups: Groups of the convolution.
        act: Whether a SiLU follows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        act: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, (kernel_size - 1) // 2, groups=groups, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)
        self.act = nn.SiLU() if act else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H', W')``."""
        out: Tensor = self.act(self.norm(self.conv(features)))
        return out


class RepVGGBlock(nn.Module):
    """A 3x3 and a 1x1 convolution side by side, summed before a SiLU; the deploy form is a single 3x3 convolution.

    Args:
        channels: Width of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3)
        self.conv2 = ConvNorm(channels, channels, 1)
        self.act = nn.SiLU()

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        out: Tensor = self.act(self.conv1(features) + self.conv2(features))
        return out


class CSPLayer(nn.Module):
    """Two 1x1 branches, one of them through RepVGG blocks, summed.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output and of the blocks.
        blocks: Number of blocks.
    """

    def __init__(self, in_channels: int, out_channels: int, *, blocks: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, out_channels, 1, act=True)
        self.conv2 = ConvNorm(in_channels, out_channels, 1, act=True)
        self.bottlenecks = nn.Sequential(*(RepVGGBlock(out_channels) for _ in range(blocks)))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H, W)``."""
        out: Tensor = self.bottlenecks(self.conv1(features)) + self.conv2(features)
        return out


class RepNCSPELAN4(nn.Module):
    """GELAN block: half of the input's projection passes through two CSP layers in a row, and all four parts are mixed.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        split_channels: Width of the projection, of which one half is processed; even.
        branch_channels: Width of the two CSP layers.
        blocks: RepVGG blocks in each of them.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, split_channels: int, branch_channels: int, blocks: int
    ) -> None:
        super().__init__()
        self.cv1 = ConvNorm(in_channels, split_channels, 1, act=True)
        self.cv2 = self._branch(split_channels // 2, branch_channels, blocks)
        self.cv3 = self._branch(branch_channels, branch_channels, blocks)
        self.cv4 = ConvNorm(split_channels + 2 * branch_channels, out_channels, 1, act=True)

    @staticmethod
    def _branch(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
        csp = CSPLayer(in_channels, out_channels, blocks=blocks)
        return nn.Sequential(csp, ConvNorm(out_channels, out_channels, 3, act=True))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H, W)``."""
        kept, first = self.cv1(features).chunk(2, dim=1)
        second = self.cv2(first)
        out: Tensor = self.cv4(torch.cat([kept, first, second, self.cv3(second)], dim=1))
        return out


class SCDown(nn.Module):
    """Halve the resolution: a 1x1 convolution for the channels, then a depthwise 3x3 one for the space.

    Args:
        channels: Width of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = ConvNorm(channels, channels, 1)
        self.cv2 = ConvNorm(channels, channels, 3, stride=2, groups=channels)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, ceil(H / 2), ceil(W / 2))``."""
        out: Tensor = self.cv2(self.cv1(features))
        return out


class EncoderLayer(nn.Module):
    """Post-norm transformer layer; positions enter queries and keys, not values.

    Args:
        width: Width of a token.
        heads: Attention heads.
        feedforward: Width inside the feed-forward part, whose activation is GELU.
        dropout: Probability of dropping an attention weight or a value.
    """

    def __init__(self, width: int, *, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Attend and feed forward.

        Args:
            tokens: Shape ``(B, N, D)``.
            positions: Shape ``(1, N, D)``.

        Returns: Shape ``(B, N, D)``.
        """
        query = tokens + positions
        attended, _ = self.self_attn(query, query, tokens, need_weights=False)
        tokens = self.norm1(tokens + self.dropout(attended))
        forwarded = self.linear2(self.dropout(gelu(self.linear1(tokens))))
        out: Tensor = self.norm2(tokens + self.dropout(forwarded))
        return out


class Encoder(nn.Module):
    """Encoder layers in a row; see :class:`EncoderLayer`."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """``(B, N, D)`` and positions ``(1, N, D)`` to ``(B, N, D)``."""
        for layer in self.layers:
            tokens = layer(tokens, positions)
        return tokens


def sincos_positions(
    height: int, width: int, channels: int, *, temperature: float = 10000.0, device: torch.device | None = None
) -> Tensor:
    """Fixed code of the places of a map: sine and cosine of x, then of y, each a quarter of the channels.

    The released checkpoints were trained with a table that runs through x slowly and y quickly although their tokens
    run the other way. It is reproduced: on a square map it only exchanges x and y, and on others it is still a fixed
    code of the places.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        channels: Width of a token, a multiple of 4.
        temperature: Largest wavelength over the smallest.
        device: Where to.

    Returns: Shape ``(1, height * width, channels)``, in the default dtype.

    Raises:
        ValueError: if ``channels`` is not a multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"positions need a multiple of 4 channels, got {channels}")
    quarter = channels // 4
    dtype = torch.get_default_dtype()
    frequencies = temperature ** -(torch.arange(quarter, device=device, dtype=dtype) / quarter)
    x = torch.arange(width, device=device, dtype=dtype).repeat_interleave(height)[:, None] * frequencies
    y = torch.arange(height, device=device, dtype=dtype).repeat(width)[:, None] * frequencies
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)[None]


class HybridEncoder(nn.Module):
    """Project all maps to one width, let the coarsest attend to itself, and fuse the maps down and up again.

    Maps of any size work: an upsampled map is cut to the finer one where a side is odd, which changes nothing where
    each map is exactly twice as large as the next.

    Args:
        in_channels: Widths of the maps, fine to coarse.
        hidden_dim: Width of all outputs, a multiple of 4 and of ``heads``.
        heads: Attention heads.
        feedforward: Width of the feed-forward part of the attention layers.
        dropout: Dropout inside them.
        attention_levels: Which maps attend to themselves; the last one by default.
        attention_layers: How many layers each of them has.
        expansion: Width of the GELAN branches as a multiple of ``hidden_dim / 2``.
        depth_mult: Number of RepVGG blocks in a branch as a multiple of 3.

    Reference: Peng et al., D-FINE, arXiv:2410.13842, section 5 and appendix (encoder with GELAN blocks).
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (512, 1024, 2048),
        *,
        hidden_dim: int = 256,
        heads: int = 8,
        feedforward: int = 1024,
        dropout: float = 0.0,
        attention_levels: Sequence[int] | None = None,
        attention_layers: int = 1,
        expansion: float = 1.0,
        depth_mult: float = 1.0,
    ) -> None:
        super().__init__()
        levels = len(in_channels)
        self.hidden_dim = hidden_dim
        self.attention_levels = tuple(attention_levels) if attention_levels is not None else (levels - 1,)
        self.input_proj = nn.ModuleList()
        for channels in in_channels:
            projection = nn.Sequential()
            projection.add_module("conv", nn.Conv2d(channels, hidden_dim, 1, bias=False))
            projection.add_module("norm", nn.BatchNorm2d(hidden_dim))
            self.input_proj.append(projection)

        def attention() -> Encoder:
            return Encoder(
                [
                    EncoderLayer(hidden_dim, heads=heads, feedforward=feedforward, dropout=dropout)
                    for _ in range(attention_layers)
                ]
            )

        def gelan() -> RepNCSPELAN4:
            return RepNCSPELAN4(
                2 * hidden_dim,
                hidden_dim,
                split_channels=2 * hidden_dim,
                branch_channels=round((expansion * hidden_dim) // 2),
                blocks=round(3 * depth_mult),
            )

        self.encoder = nn.ModuleList(attention() for _ in self.attention_levels)
        self.lateral_convs = nn.ModuleList(ConvNorm(hidden_dim, hidden_dim, 1) for _ in range(levels - 1))
        self.fpn_blocks = nn.ModuleList(gelan() for _ in range(levels - 1))
        self.downsample_convs = nn.ModuleList(nn.Sequential(SCDown(hidden_dim)) for _ in range(levels - 1))
        self.pan_blocks = nn.ModuleList(gelan() for _ in range(levels - 1))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Fuse the maps.

        Args:
            features: Maps ``(B, C_i, H_i, W_i)``, fine to coarse, each side of a map half of the finer one's, rounded
                up.

        Returns: As many maps ``(B, hidden_dim, H_i, W_i)``.

        Raises:
            ShapeError: if the number of maps, or their sizes, are not as built for.
        """
        self._check(features)
        maps = [project(level) for project, level in zip(self.input_proj, features, strict=True)]
        for encoder, i in zip(self.encoder, self.attention_levels, strict=True):
            height, width = maps[i].shape[-2:]
            tokens = maps[i].flatten(2).transpose(1, 2)
            positions = sincos_positions(height, width, self.hidden_dim, device=tokens.device).to(tokens.dtype)
            maps[i] = encoder(tokens, positions).transpose(1, 2).reshape(maps[i].shape)

        outputs = [maps[-1]]
        steps = zip(self.lateral_convs, self.fpn_blocks, reversed(maps[:-1]), strict=True)
        for lateral, block, fine in steps:
            outputs[0] = lateral(outputs[0])
            raised = interpolate(outputs[0], scale_factor=2.0, mode="nearest")[..., : fine.shape[-2], : fine.shape[-1]]
            outputs.insert(0, block(torch.cat([raised, fine], dim=1)))

        for i, (down, block) in enumerate(zip(self.downsample_convs, self.pan_blocks, strict=True)):
            outputs[i + 1] = block(torch.cat([down(outputs[i]), outputs[i + 1]], dim=1))
        return outputs

    def _check(self, features: Sequence[Tensor]) -> None:
        if len(features) != len(self.input_proj):
            raise ShapeError(f"the encoder was built for {len(self.input_proj)} maps, got {len(features)}")
        sizes = [tuple(level.shape[-2:]) for level in features]
        for fine, coarse in pairwise(sizes):
            if coarse != tuple(-(-side // 2) for side in fine):
                raise ShapeError(
                    f"each map must be half as large as the finer one, rounded up, got sizes {sizes}: take maps of "
                    "neighbouring strides, fine to coarse"
                )
