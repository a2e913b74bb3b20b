"""Vision transformers over patches of clips and frames that encode visible patches only.

Parameters are named as in VideoMAE and DISCOVR's released files (``patch_embed.proj``, ``cls_token``, ``pos_embed``,
``blocks.0.attn.qkv``, ..., ``norm``).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from limbeck_core.errors import ConfigError, ShapeError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoded(NamedTuple):
    """What an encoder says of clips or frames.

    Args:
        embedding: Class token, ``(rows, D)``.
        tokens: Patches, by row, time and place, ``(rows, T, P, D)``; of masked rows only the visible ones, and T times
            as many visible places.
    """

    embedding: Tensor
    tokens: Tensor


class Attention(nn.Module):
    """Multi-head self-attention with biases of queries and values, never of keys.

    Args:
        dim: Width.
        heads: Number of heads, a divisor of the width.
        qkv_bias: Whether queries and values have a bias.
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"the width of a transformer must be a multiple of its heads, got {dim} and {heads}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each row of tokens ``(rows, N, D)``."""
        rows, count, dim = x.shape
        bias = None
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        joint = linear(x, self.qkv.weight, bias).reshape(rows, count, 3, self.heads, dim // self.heads)
        query, key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(rows, count, dim))
        return out


class Mlp(nn.Module):
    """Two layers with GELU between them.

    Args:
        dim: Width of input and output.
        hidden: Width between.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map each token ``(..., D)``."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and beside a shortcut.

    Args:
        dim: Width.
        heads: Number of heads.
        qkv_bias: As :class:`Attention`.
        norm_eps: Epsilon of the layer norms.
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(rows, N, D)``."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchEmbed(nn.Module):
    """Cut a clip into tubelets and project each.

    Args:
        channels: Channels of the clip.
        dim: Width of a token.
        tubelet: Frames of a tubelet.
        patch: Height and width of a patch in pixels.
    """

    def __init__(self, channels: int, dim: int, tubelet: int, patch: int) -> None:
        super().__init__()
        kernel = (tubelet, patch, patch)
        self.proj = nn.Conv3d(channels, dim, kernel_size=kernel, stride=kernel)

    def forward(self, video: Tensor) -> Tensor:
        """Map ``(rows, C, T, H, W)`` to tokens ``(rows, N, D)``, by time, then row, then column."""
        out: Tensor = self.proj(video).flatten(2).transpose(1, 2)
        return out


class ViTEncoder(nn.Module):
    """A vision transformer over a clip, or over one frame.

    Positions are fixed sinusoids along the running number of a patch; the class token has position 0. Pixels are
    normalised here, so that an exported encoder takes bytes.

    Args:
        image_size: Height and width of the pictures in pixels, a multiple of ``patch``.
        frames: Frames of a clip; 1 for single frames.
        patch: Side of a patch in pixels.
        tubelet: Frames of a patch, a divisor of ``frames``.
        channels: 3 (ImageNet's mean and spread) or 1 (0.5 and 0.5).
        dim: Width.
        depth: Number of blocks.
        heads: Number of heads.
        qkv_bias: Biases of queries and values. The released files have none.
        norm_eps: Epsilon of the layer norms.
        recompute: Recompute blocks in the backward pass instead of keeping what they computed: slower, less memory.

    Raises:
        ConfigError: if sizes do not divide, or channels are neither 1 nor 3.
    """

    mean: Tensor
    std: Tensor
    pos_embed: Tensor

    def __init__(
        self,
        *,
        image_size: int = 112,
        frames: int = 64,
        patch: int = 16,
        tubelet: int = 2,
        channels: int = 3,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        qkv_bias: bool = True,
        norm_eps: float = 1e-6,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if image_size % patch or frames % tubelet:
            raise ConfigError(
                f"pictures of {image_size} pixels and clips of {frames} frames must be multiples of the patch "
                f"({patch} pixels, {tubelet} frames)"
            )
        if channels not in (1, 3):
            raise ConfigError(f"channels must be 3 (colour) or 1 (grey), got {channels}")
        self.image_size, self.frames, self.channels, self.dim = image_size, frames, channels, dim
        self.tubelet, self.recompute = tubelet, recompute
        self.side = image_size // patch
        self.times = frames // tubelet
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.5,), (0.5,))
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1, 1), persistent=False)
        self.patch_embed = PatchEmbed(channels, dim, tubelet, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        places = sinusoids(self.times * self.side**2, dim)
        self.register_buffer("pos_embed", torch.cat((torch.zeros(1, dim), places))[None])
        self.blocks = nn.ModuleList(Block(dim, heads, qkv_bias=qkv_bias, norm_eps=norm_eps) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.apply(draw_weights)

    def forward(self, video: Tensor, visible: Tensor | None = None) -> Encoded:
        """Encode clips.

        Args:
            video: ``(B, C, T, H, W)``, bytes or numbers in [0, 1].
            visible: Positions on the grid that are seen, at all times alike, integers ``(views, B, n)``; ``None`` sees
                all. Only what is seen is computed.

        Returns:
            Embeddings and tokens of ``B`` rows, or of ``views * B`` rows, view by view.

        Raises:
            ShapeError: if the clip is of another size than the encoder.
        """
        expected = (self.channels, self.frames, self.image_size, self.image_size)
        if video.ndim != 5 or tuple(video.shape[1:]) != expected:
            raise ShapeError(
                f"the encoder takes clips (B, C, T, H, W) of {expected}, got {tuple(video.shape)}: set clip and crop "
                "of the data set, or build the encoder for that size"
            )
        pixels = video if video.is_floating_point() else video.to(self.mean.dtype) / 255
        x = self.patch_embed((pixels - self.mean) / self.std) + self.pos_embed[:, 1:]
        places = self.side**2
        if visible is not None:
            places = visible.shape[-1]
            index = token_positions(visible.to(x.device), self.times, self.side**2)
            index = index.unsqueeze(-1).expand(-1, -1, -1, self.dim)
            x = x.expand(len(visible), *x.shape).gather(2, index).flatten(0, 1)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(x.shape[0], -1, -1)
        x = torch.cat((first, x), dim=1)
        for block in self.blocks:
            if self.recompute and self.training and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        x = self.norm(x)
        return Encoded(x[:, 0], x[:, 1:].unflatten(1, (self.times, places)))


def token_positions(visible: Tensor, times: int, places: int) -> Tensor:
    """Return running numbers of tokens, rising, ``(..., times * n)``, of places ``(..., n)`` seen at all times."""
    start = torch.arange(times, device=visible.device) * places
    return (start[:, None] + visible.unsqueeze(-2)).flatten(-2)


def sinusoids(count: int, dim: int) -> Tensor:
    """Return fixed positions ``(count, dim)``: sines in even columns, cosines in odd ones.

    Reference: Vaswani et al., Attention Is All You Need, arXiv:1706.03762, section 3.5.
    """
    column = torch.arange(dim, dtype=torch.float64)
    angles = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** (2 * (column // 2) / dim)
    return torch.where(column % 2 == 0, angles.sin(), angles.cos()).float()


def draw_weights(module: nn.Module) -> None:
    """Draw a linear layer's weights uniformly by its size (Glorot); biases are zero."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def image_mean(embeddings: Tensor, clips: int) -> Tensor:
    """Return the mean over each clip's frames of their embeddings, ``(clips * T, D)`` to ``(clips, D)``."""
    return embeddings.reshape(clips, -1, embeddings.shape[-1]).mean(1)
