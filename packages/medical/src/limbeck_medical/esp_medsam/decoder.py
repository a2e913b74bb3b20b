"""Decoding embeddings into masks without a manual prompt: SAM's decoder with one query a modality.

Names of weights are SAM's (Kirillov et al., arXiv:2304.02643) where it has them.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu, scaled_dot_product_attention

from limbeck_medical.esp_medsam.layers import LayerNorm2d


class PromptEncoder(nn.Module):
    """SAM's prompt encoder, of which the code of positions alone is used; the rest is there so that its files load.

    Args:
        embed_dim: Channels of the embedding, even.
        grid: Side of the embedding.
    """

    def __init__(self, embed_dim: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.pe_layer = _RandomFourier(embed_dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, stride=2),
            LayerNorm2d(4),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2),
            LayerNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, embed_dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)
        self.requires_grad_(False)

    def forward(self) -> Tensor:
        """Return the code of each position of the embedding, ``(1, embed_dim, grid, grid)``."""
        codes: Tensor = self.pe_layer(self.grid)
        return codes


class _RandomFourier(nn.Module):
    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, embed_dim // 2))

    def forward(self, grid: int) -> Tensor:
        matrix = self.positional_encoding_gaussian_matrix
        centres = 2 * (torch.arange(grid, device=matrix.device, dtype=matrix.dtype) + 0.5) / grid - 1
        rows, columns = torch.meshgrid(centres, centres, indexing="ij")
        angles = 2 * torch.pi * (torch.stack([columns, rows], -1) @ matrix)
        return torch.cat([angles.sin(), angles.cos()], -1).permute(2, 0, 1)[None]


class MaskDecoder(nn.Module):
    """SAM's two-way transformer and upscaling; a query's output, through the hyper-network, weighs the upscaled map.

    SAM's tokens and head for the quality of masks are left out, as in the released code of ESP-MedSAM.

    Args:
        embed_dim: Channels of the embedding, a multiple of 8. SAM: 256.
        depth: Layers of the transformer. SAM: 2.
        heads: Attention heads. SAM: 8.
        hidden: Width of the MLPs of the transformer. SAM: 2048.
        hypernetworks: 1 shares one among all queries, as the released code does; otherwise one for each modality, as
            the paper's figure shows.
    """

    def __init__(
        self, embed_dim: int = 256, *, depth: int = 2, heads: int = 8, hidden: int = 2048, hypernetworks: int = 1
    ) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(embed_dim, depth=depth, heads=heads, hidden=hidden)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(embed_dim, embed_dim // 4, 2, stride=2),
            LayerNorm2d(embed_dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(embed_dim // 4, embed_dim // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            _HyperNetwork(embed_dim, embed_dim // 8) for _ in range(hypernetworks)
        )

    def forward(self, embeddings: Tensor, positions: Tensor, queries: Tensor, modality: Tensor) -> Tensor:
        """Return mask logits ``(N, 1, 4 H, 4 W)``, of each sample the mask of its modality.

        Args:
            embeddings: Image embeddings with the prompt added, ``(N, C, H, W)``.
            positions: Code of positions, ``(1, C, H, W)``.
            queries: All queries, ``(Q, C)``; they see each other.
            modality: Query of each sample, ``(N,)``.
        """
        batch, channels, height, width = embeddings.shape
        tokens, image = self.transformer(
            queries.expand(batch, -1, -1),
            embeddings.flatten(2).transpose(1, 2),
            positions.flatten(2).transpose(1, 2),
        )
        upscaled = self.output_upscaling(image.transpose(1, 2).reshape(batch, channels, height, width))
        chosen = tokens[torch.arange(batch, device=tokens.device), modality]
        networks = self.output_hypernetworks_mlps
        if len(networks) == 1:
            weights = networks[0](chosen)
        else:
            every = torch.stack([network(chosen) for network in networks], 1)
            weights = every[torch.arange(batch, device=tokens.device), modality]
        return torch.einsum("bc,bchw->bhw", weights, upscaled)[:, None]


class TwoWayTransformer(nn.Module):
    """SAM's transformer in which tokens attend to the image and the image to tokens.

    Args:
        dim: Width.
        depth: Layers.
        heads: Attention heads; attention between tokens and image runs at half the width.
        hidden: Width of the MLPs.
    """

    def __init__(self, dim: int, *, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_TwoWayLayer(dim, heads, hidden, first=index == 0) for index in range(depth))
        self.final_attn_token_to_image = _Attention(dim, heads, dim // 2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and image after the transformer, of their shapes.

        Args:
            tokens: Shape ``(N, Q, C)``; they are their own code of positions.
            image: Shape ``(N, L, C)``.
            positions: Shape ``(1, L, C)``.
        """
        queries, keys = tokens, image
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, positions)
        attended = self.final_attn_token_to_image(queries + tokens, keys + positions, keys)
        return self.norm_final_attn(queries + attended), keys


class _TwoWayLayer(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = _Attention(dim, heads, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = _Attention(dim, heads, dim // 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _MLP(dim, hidden)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = _Attention(dim, heads, dim // 2)

    def forward(self, queries: Tensor, keys: Tensor, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:  # nothing to add to: the queries still are the tokens
            queries = self.self_attn(queries, queries, queries)
        else:
            queries = queries + self.self_attn(queries + tokens, queries + tokens, queries)
        queries = self.norm1(queries)
        queries = self.norm2(queries + self.cross_attn_token_to_image(queries + tokens, keys + positions, keys))
        queries = self.norm3(queries + self.mlp(queries))
        keys = self.norm4(keys + self.cross_attn_image_to_token(keys + positions, queries + tokens, queries))
        return queries, keys


class _MLP(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        changed: Tensor = self.lin2(relu(self.lin1(tokens)))
        return changed


class _HyperNetwork(nn.Module):
    def __init__(self, dim: int, outside: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, outside)])

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            tokens = relu(layer(tokens))
        return cast("Tensor", self.layers[-1](tokens))


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, inside: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, inside)
        self.k_proj = nn.Linear(dim, inside)
        self.v_proj = nn.Linear(dim, inside)
        self.out_proj = nn.Linear(inside, dim)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        split = [
            projection(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        ]
        mixed: Tensor = self.out_proj(scaled_dot_product_attention(*split).transpose(1, 2).flatten(2))
        return mixed


class PatchPrompter(nn.Module):
    """Where the object is, coarsely, fed back as a dense prompt (SPPG).

    Args:
        embed_dim: Channels of the embedding, a multiple of 4.
    """

    def __init__(self, embed_dim: int = 256) -> None:
        super().__init__()
        self.patch_decoder = nn.Sequential(
            nn.Conv2d(embed_dim, embed_dim // 4, 2, stride=2),
            LayerNorm2d(embed_dim // 4),
            nn.GELU(),
            nn.Conv2d(embed_dim // 4, 1, 1),
        )
        self.dense_prompter = nn.Sequential(nn.Conv2d(1, embed_dim, 1), LayerNorm2d(embed_dim), nn.GELU())

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Return patch logits ``(N, 1, H / 2, W / 2)`` and the prompt ``(N, C, H, W)``.

        The patches enter the prompt as 0 or 1, without gradient: the patch decoder learns from its own loss alone.
        """
        patches = self.patch_decoder(embeddings)
        chosen = (patches.detach() >= 0).to(patches.dtype)
        prompt = self.dense_prompter(interpolate(chosen, size=embeddings.shape[2:], mode="nearest"))
        return patches, prompt
