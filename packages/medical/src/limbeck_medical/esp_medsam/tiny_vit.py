"""The light image encoder: TinyViT-5M as MobileSAM lays it out, with room for modality controllers.

TinyViT: Wu et al., arXiv:2207.10666; as an encoder of SAM: Zhang et al., Faster Segment Anything (MobileSAM),
arXiv:2306.14289, whose names of weights are kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from limbeck_medical.esp_medsam.layers import (
    Routing,
    check_images,
    from_windows,
    keep_controllers_alone,
    neck,
    route,
    to_windows,
)


class TinyViTEncoder(nn.Module):
    """Images to embeddings of SAM's shape: the modality aggregator, with ``controllers`` the modality controllers too.

    A controller gives every attention block, for its modality, one token per head that serves as key and as value, with
    one learned bias, and an MLP beside the block's own. All its parameters have ``med_`` in their names. The MLP's last
    layer starts at zero, so that a new controller changes the output by its tokens alone (ours; the released code draws
    that layer at random).

    The classifier ``norm_head``, ``head`` is never used and never trained; it is there because the released files hold
    it and the published number of parameters counts it.

    Args:
        image_size: Side of the square images in pixels, a multiple of 16.
        dims: Widths of the four stages.
        depths: Blocks of the four stages.
        heads: Attention heads of the last three stages.
        windows: Sides of the windows of the last three stages, in tokens.
        embed_dim: Channels of the embedding. SAM: 256.
        controllers: Number of modality controllers. The released model has one at a time.
        controllers_only: Train nothing but the controllers; batch normalisation then keeps its statistics.

    Raises:
        ValueError: if sizes do not divide, or ``controllers_only`` is set without controllers.
    """

    def __init__(
        self,
        *,
        image_size: int = 1024,
        dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (4, 5, 10),
        windows: Sequence[int] = (7, 14, 7),
        embed_dim: int = 256,
        controllers: int = 0,
        controllers_only: bool = False,
    ) -> None:
        super().__init__()
        if image_size % 16 or any(dim % head for dim, head in zip(dims[1:], heads, strict=True)):
            raise ValueError(
                "image_size must be a multiple of 16 and each of dims one of its heads, got "
                f"{image_size}, {tuple(dims)} and {tuple(heads)}"
            )
        if controllers_only and not controllers:
            raise ValueError("controllers_only=True leaves nothing to train with controllers=0: give controllers")
        self.image_size, self.embed_dim, self.controllers = image_size, embed_dim, controllers
        self.controllers_only = controllers_only
        self.patch_embed = _PatchEmbed(dims[0])
        self.layers = nn.ModuleList(
            [
                _Stage(nn.ModuleList(_MBConv(dims[0]) for _ in range(depths[0])), _Merge(dims[0], dims[1], 2)),
                *(
                    _Stage(
                        nn.ModuleList(
                            _Block(dims[stage], heads[stage - 1], windows[stage - 1], controllers)
                            for _ in range(depths[stage])
                        ),
                        _Merge(dims[stage], dims[stage + 1], 2 if stage == 1 else 1) if stage < 3 else None,
                    )
                    for stage in (1, 2, 3)
                ),
            ]
        )
        self.norm_head = nn.LayerNorm(dims[3]).requires_grad_(False)
        self.head = nn.Linear(dims[3], 1000).requires_grad_(False)
        self.neck = neck(dims[3], embed_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for block in self.modules():
            if isinstance(block, _Block):
                block.start_controllers()
        if controllers_only:
            keep_controllers_alone(self)

    def train(self, mode: bool = True) -> TinyViTEncoder:
        """Set the mode; under ``controllers_only`` everything is in evaluation mode always."""
        super().train(mode and not self.controllers_only)
        return self

    def forward(self, images: Tensor, modality: int | Tensor = 0) -> Tensor:
        """Return embeddings ``(N, embed_dim, image_size / 16, image_size / 16)`` of ``(N, 3, image_size, image_size)``.

        Args:
            images: The images.
            modality: One number, or one a sample; only read with several controllers.

        Raises:
            ShapeError: if the images have another shape, or there are not as many modalities as samples.
            TargetError: if there is no controller of a modality.
        """
        check_images(images, self.image_size)
        routing = route(modality, len(images), self.controllers, images.device)
        features = self.patch_embed(images)
        for stage in self.layers:
            features = stage(features, routing)
        embeddings: Tensor = self.neck(features)
        return embeddings


class _ConvBN(nn.Sequential):
    def __init__(
        self, inside: int, outside: int, size: int = 1, *, stride: int = 1, groups: int = 1, start: float = 1.0
    ) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False))
        normalisation = nn.BatchNorm2d(outside)
        nn.init.constant_(normalisation.weight, start)
        self.add_module("bn", normalisation)


class _PatchEmbed(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(_ConvBN(3, dim // 2, 3, stride=2), nn.GELU(), _ConvBN(dim // 2, dim, 3, stride=2))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.seq(images)
        return features


class _MBConv(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = _ConvBN(dim, 4 * dim)
        self.conv2 = _ConvBN(4 * dim, 4 * dim, 3, groups=4 * dim)
        self.conv3 = _ConvBN(4 * dim, dim, start=0.0)

    def forward(self, features: Tensor, _: Routing | None) -> Tensor:
        inside = gelu(self.conv2(gelu(self.conv1(features))))
        return gelu(features + self.conv3(inside))


class _Merge(nn.Module):
    def __init__(self, dim: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _ConvBN(dim, outside)
        self.conv2 = _ConvBN(outside, outside, 3, stride=stride, groups=outside)
        self.conv3 = _ConvBN(outside, outside)

    def forward(self, features: Tensor) -> Tensor:
        merged: Tensor = self.conv3(gelu(self.conv2(gelu(self.conv1(features)))))
        return merged


class _Stage(nn.Module):
    def __init__(self, blocks: nn.ModuleList, downsample: _Merge | None) -> None:
        super().__init__()
        self.blocks = blocks
        self.downsample = downsample

    def forward(self, features: Tensor, routing: Routing | None) -> Tensor:
        for block in self.blocks:
            features = block(features, routing)
        return features if self.downsample is None else cast("Tensor", self.downsample(features))


class _MLP(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        changed: Tensor = self.fc2(gelu(self.fc1(self.norm(tokens))))
        return changed


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, window: int, controllers: int) -> None:
        super().__init__()
        self.window = window
        self.attn = _Attention(dim, heads, window, controllers)
        self.local_conv = _ConvBN(dim, dim, 3, groups=dim)
        self.mlp = _MLP(dim)
        self.med_mlps = nn.ModuleList(_MLP(dim) for _ in range(controllers))

    def start_controllers(self) -> None:
        """Let the controllers' MLPs add nothing."""
        for mlp in self.med_mlps:
            nn.init.zeros_(cast("_MLP", mlp).fc2.weight)

    def forward(self, features: Tensor, routing: Routing | None) -> Tensor:
        size = (features.shape[2], features.shape[3])
        windows, padded = to_windows(features.permute(0, 2, 3, 1), self.window)
        attended = self.attn(windows.flatten(1, 2), routing).reshape(windows.shape)
        features = self.local_conv(features + from_windows(attended, padded, size).permute(0, 3, 1, 2))
        tokens = features.permute(0, 2, 3, 1)
        changed: Tensor = tokens + self.mlp(tokens)
        if routing is not None:
            changed = changed + routing.apply(self.med_mlps, tokens)
        return changed.permute(0, 3, 1, 2)


class _Attention(nn.Module):
    """Attention inside of windows, with one learned bias for each distance in rows and columns."""

    offsets: Tensor

    def __init__(self, dim: int, heads: int, window: int, controllers: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.register_buffer("offsets", _offsets(window), persistent=False)
        if controllers:
            limit = math.sqrt(6 / (3 * 16**2 + 16))
            self.med_tokens = nn.Parameter(torch.empty(controllers, heads, dim // heads).uniform_(-limit, limit))
            self.med_biases = nn.Parameter(torch.zeros(controllers))

    def forward(self, tokens: Tensor, routing: Routing | None) -> Tensor:
        batch, length, dim = tokens.shape
        # the released weights keep query, key and value of one head together
        qkv = self.qkv(self.norm(tokens)).reshape(batch, length, self.heads, 3, dim // self.heads)
        query, key, value = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        bias = self.attention_biases[:, self.offsets][None]
        if routing is not None:
            index = routing.index.repeat_interleave(batch // len(routing.index)) if batch else routing.index
            token = self.med_tokens[index][:, :, None].to(key.dtype)
            key, value = torch.cat([key, token], 2), torch.cat([value, token], 2)
            column = self.med_biases[index][:, None, None, None].expand(-1, self.heads, length, 1)
            bias = torch.cat([bias.expand(batch, -1, -1, -1), column], 3)
        attended = scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        mixed: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, length, dim))
        return mixed


def _offsets(window: int) -> Tensor:
    """Return the number of the distance of each pair of positions, in the order in which the pairs show them first."""
    points = list(itertools.product(range(window), range(window)))
    numbers: dict[tuple[int, int], int] = {}
    pairs = [numbers.setdefault((abs(a[0] - b[0]), abs(a[1] - b[1])), len(numbers)) for a in points for b in points]
    return torch.tensor(pairs).reshape(len(points), len(points))
