"""SAM's image encoder: the teacher, with SAM's own names of weights, and room for medical knowledge.

The layout (Kirillov et al., Segment Anything, arXiv:2304.02643, after Li et al., arXiv:2203.16527) is a ViT whose
blocks attend in windows of 14, four of them globally, with decomposed relative positions.
"""

from __future__ import annotations

from collections.abc import Sequence

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


class SAMImageEncoder(nn.Module):
    """Images to embeddings, as in SAM; with ``controllers``, the medical teacher of ESP-MedSAM.

    A controller gives every block, for its modality, one key and one value token (separate ones, as in the figure of
    the preprint) and an adapter after the block. What the figure leaves open is ours: the adapter is LayerNorm, a layer
    to a sixteenth of the width, GELU and a layer back, which starts at zero; the token has one learned bias a block.

    Args:
        image_size: Side of the square images in pixels. SAM: 1024.
        patch_size: Side of a token in pixels. SAM: 16.
        dim: Width. SAM-B: 768.
        depth: Number of blocks. SAM-B: 12.
        heads: Attention heads. SAM-B: 12.
        global_blocks: Blocks that attend globally. SAM-B: 2, 5, 8, 11.
        window: Side of the windows of the others, in tokens. SAM: 14.
        embed_dim: Channels of the embedding. SAM: 256.
        controllers: Number of modality controllers; 0 is SAM itself.
        controllers_only: Train nothing but the controllers.

    Raises:
        ValueError: if sizes do not divide, or ``controllers_only`` is set without controllers.
    """

    def __init__(
        self,
        *,
        image_size: int = 1024,
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        window: int = 14,
        embed_dim: int = 256,
        controllers: int = 0,
        controllers_only: bool = False,
    ) -> None:
        super().__init__()
        if image_size % patch_size or dim % heads:
            raise ValueError(
                f"image_size must be a multiple of patch_size and dim one of heads, got {image_size}, {patch_size}, "
                f"{dim} and {heads}"
            )
        if controllers_only and not controllers:
            raise ValueError("controllers_only=True leaves nothing to train with controllers=0: give controllers")
        self.image_size, self.embed_dim, self.controllers = image_size, embed_dim, controllers
        self.grid = image_size // patch_size
        self.patch_embed = _PatchEmbed(patch_size, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid, self.grid, dim))
        self.blocks = nn.ModuleList(
            _Block(dim, heads, 0 if index in set(global_blocks) else window, self.grid, controllers)
            for index in range(depth)
        )
        self.neck = neck(dim, embed_dim)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if controllers_only:
            keep_controllers_alone(self)

    def forward(self, images: Tensor, modality: int | Tensor = 0) -> Tensor:
        """Return embeddings ``(N, embed_dim, grid, grid)`` of images ``(N, 3, image_size, image_size)``.

        Args:
            images: Normalised as SAM's: mean and standard deviation of ImageNet.
            modality: One number, or one a sample; only read with several controllers.

        Raises:
            ShapeError: if the images have another shape, or there are not as many modalities as samples.
            TargetError: if there is no controller of a modality.
        """
        check_images(images, self.image_size)
        routing = route(modality, len(images), self.controllers, images.device)
        tokens = self.patch_embed(images) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens, routing)
        embeddings: Tensor = self.neck(tokens.permute(0, 3, 1, 2))
        return embeddings


def sam_vit_b(**options: object) -> SAMImageEncoder:
    """Return SAM-B's image encoder (``sam_vit_b_01ec64.pth``)."""
    return SAMImageEncoder(**options)  # type: ignore[arg-type]  # checked there


def sam_vit_l(**options: object) -> SAMImageEncoder:
    """Return SAM-L's image encoder (``sam_vit_l_0b3195.pth``)."""
    size = {"dim": 1024, "depth": 24, "heads": 16, "global_blocks": (5, 11, 17, 23)}
    return SAMImageEncoder(**{**size, **options})  # type: ignore[arg-type]


def sam_vit_h(**options: object) -> SAMImageEncoder:
    """Return SAM-H's image encoder (``sam_vit_h_4b8939.pth``)."""
    size = {"dim": 1280, "depth": 32, "heads": 16, "global_blocks": (7, 15, 23, 31)}
    return SAMImageEncoder(**{**size, **options})  # type: ignore[arg-type]


class _PatchEmbed(nn.Module):
    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.proj(images)
        return patches.permute(0, 2, 3, 1)


class _MLP(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        changed: Tensor = self.lin2(gelu(self.lin1(tokens)))
        return changed


class _Adapter(nn.Sequential):
    def __init__(self, dim: int) -> None:
        inside = max(1, dim // 16)
        last = nn.Linear(inside, dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        super().__init__(nn.LayerNorm(dim), nn.Linear(dim, inside), nn.GELU(), last)


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, window: int, grid: int, controllers: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = _Attention(dim, heads, window or grid, controllers)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = _MLP(dim, 4 * dim)
        self.med_adapters = nn.ModuleList(_Adapter(dim) for _ in range(controllers))

    def forward(self, tokens: Tensor, routing: Routing | None) -> Tensor:
        inside = self.norm1(tokens)
        if self.window:
            size = (tokens.shape[1], tokens.shape[2])
            windows, padded = to_windows(inside, self.window)
            attended = from_windows(self.attn(windows, routing), padded, size)
        else:
            attended = self.attn(inside, routing)
        tokens = tokens + attended
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens if routing is None else tokens + routing.apply(self.med_adapters, tokens)


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, side: int, controllers: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        if controllers:
            self.med_key = nn.Parameter(0.02 * torch.randn(controllers, heads, dim // heads))
            self.med_value = nn.Parameter(0.02 * torch.randn(controllers, heads, dim // heads))
            self.med_bias = nn.Parameter(torch.zeros(controllers))

    def forward(self, tokens: Tensor, routing: Routing | None) -> Tensor:
        batch, height, width, dim = tokens.shape
        length, inside = height * width, dim // self.heads
        qkv = self.qkv(tokens).reshape(batch, length, 3, self.heads, inside)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        grid = query.reshape(batch, self.heads, height, width, inside)
        # scores of (row, column) with (row', column'): a term of row', and one of column'
        rows = torch.einsum("bhyxd,yzd->bhyxz", grid, _relative(self.rel_pos_h, height))
        columns = torch.einsum("bhyxd,xzd->bhyxz", grid, _relative(self.rel_pos_w, width))
        bias = (rows[..., :, None] + columns[..., None, :]).reshape(batch, self.heads, length, length)
        if routing is not None:
            index = routing.index.repeat_interleave(batch // len(routing.index)) if batch else routing.index
            key = torch.cat([key, self.med_key[index][:, :, None]], 2)
            value = torch.cat([value, self.med_value[index][:, :, None]], 2)
            column = self.med_bias[index][:, None, None, None].expand(-1, self.heads, length, 1)
            bias = torch.cat([bias, column.to(bias.dtype)], 3)
        attended = scaled_dot_product_attention(query, key.to(query), value.to(query), attn_mask=bias.to(query.dtype))
        mixed: Tensor = self.proj(attended.transpose(1, 2).reshape(tokens.shape))
        return mixed


def _relative(table: Tensor, side: int) -> Tensor:
    """Return the entry of each pair of positions on an axis, ``(side, side, dim)``."""
    positions = torch.arange(side, device=table.device)
    return table[positions[:, None] - positions[None, :] + side - 1]
