"""Encoders of clouds: PointNet, and a small transformer over groups of points. One vector a cloud."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from limbeck_core.checks import check_positive
from limbeck_core.errors import ConfigError
from limbeck_detection.dcglr.sampling import check_clouds, farthest_points, nearest_points


class SharedLayers(nn.Sequential):
    """Linear layers that every point goes through alone, each with batch norm and ReLU.

    Args:
        widths: Channels, the input's first.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for below, above in pairwise(widths):
            layers += [nn.Linear(below, above, bias=False), nn.BatchNorm1d(above), nn.ReLU(inplace=True)]
        super().__init__(*layers)

    def forward(self, points: Tensor) -> Tensor:
        """Encode ``(..., C)``."""
        rows: Tensor = super().forward(points.flatten(0, -2))  # type: ignore[no-untyped-call]
        return rows.view(*points.shape[:-1], -1)


class PointNet(nn.Module):
    """Every point alone, then the maximum over points; without the input transforms of the paper.

    Args:
        dim: Width D of the embedding.
        widths: Channels of the layers before the last.

    Reference: Qi et al., PointNet, arXiv:1612.00593.
    """

    def __init__(self, dim: int = 1024, *, widths: Sequence[int] = (64, 64, 64, 128)) -> None:
        super().__init__()
        check_positive(dim, "dim")
        self.dim = dim
        self.layers = SharedLayers((3, *widths, dim))

    def forward(self, points: Tensor) -> Tensor:
        """Return embeddings ``(B, D)`` of clouds ``(B, n, 3)``.

        Raises:
            ShapeError: if the clouds have another shape.
        """
        check_clouds(points)
        features: Tensor = self.layers(points).amax(1)
        return features

    @torch.no_grad()
    def importance(self, points: Tensor) -> Tensor:
        """Share of the embedding that each point decides, being the maximum of a channel: ``(B, n)``, sums to 1.

        Points that share a maximum share it evenly.
        """
        check_clouds(points)
        features = self.layers(points)
        largest = (features == features.amax(1, keepdim=True)).to(points.dtype)
        shares: Tensor = (largest / largest.sum(1, keepdim=True)).mean(2)
        return shares


class Block(nn.Module):
    """Attention and two linear layers, each behind a norm and beside a shortcut.

    Args:
        dim: Width.
        heads: Attention heads.
        ratio: Width between the linear layers, in units of ``dim``.
        drop_path: Share of samples whose branches are left out in training.
    """

    def __init__(self, dim: int, heads: int, ratio: float, drop_path: float) -> None:
        super().__init__()
        self.heads = heads
        self.drop_path = drop_path
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        hidden = round(ratio * dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens ``(B, S, D)``."""
        query, key, value = self._heads(tokens)
        mixed = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self._kept(self.out(mixed))
        return tokens + self._kept(self.mlp(self.norm2(tokens)))

    def attention(self, tokens: Tensor) -> Tensor:
        """Return how much each token looks at each, ``(B, heads, S, S)``."""
        query, key, _ = self._heads(tokens)
        return (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)

    def _heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.qkv(self.norm1(tokens)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def _kept(self, branch: Tensor) -> Tensor:
        if not self.training or not self.drop_path:
            return branch
        keep = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * keep / (1 - self.drop_path)


class PointTransformer(nn.Module):
    """Groups of neighbouring points as tokens, a class token before them, and attention.

    Every point goes through two layers. Around points that lie far from each other, the nearest ``group`` points are
    encoded relative to their centre and beside it, and their maximum is the token. There is no positional embedding.

    Args:
        dim: Width D of tokens and embedding.
        depth: Blocks.
        heads: Attention heads; they divide ``dim``.
        group: Points of a group; there are ``ceil(n / group)`` groups.
        mlp_ratio: See :class:`Block`.
        drop_path: Of the last block; it grows from 0.

    Raises:
        ConfigError: if ``heads`` do not divide ``dim``.

    Reference: base (192, 4, 4) and large (512, 8, 8) are those of POS-BERT's code, the successor of DCGLR
        (arXiv:2202.04241); the paper's own transformer may differ. Starting at the point farthest from the mean, so
        that the order of points has no say, is a choice made here.
    """

    def __init__(
        self,
        dim: int = 192,
        *,
        depth: int = 4,
        heads: int = 4,
        group: int = 32,
        mlp_ratio: float = 2.0,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("depth", depth), ("heads", heads), ("group", group)):
            check_positive(value, name)
        if dim % heads:
            raise ConfigError(f"heads must divide dim, got {heads} heads and a dim of {dim}")
        self.dim = dim
        self.group = group
        self.points = SharedLayers((3, 64, 64))
        self.groups = SharedLayers((128, dim, dim))
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.trunc_normal_(self.token, std=0.02)
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        self.blocks = nn.ModuleList([Block(dim, heads, mlp_ratio, rate) for rate in rates])
        self.norm = nn.LayerNorm(dim)

    def forward(self, points: Tensor) -> Tensor:
        """Return embeddings ``(B, D)`` of clouds ``(B, n, 3)``: the class token.

        Raises:
            ShapeError: if the clouds have another shape.
        """
        tokens, _ = self._tokens(points)
        for block in self.blocks:
            tokens = block(tokens)
        embedding: Tensor = self.norm(tokens[:, 0])
        return embedding

    @torch.no_grad()
    def importance(self, points: Tensor) -> Tensor:
        """How much the class token of the last block looks at each point's group, mean over heads: ``(B, n)``.

        A point belongs to the nearest centre. Rows sum to 1 over the groups, not over points.
        """
        tokens, centres = self._tokens(points)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        last: Block = self.blocks[-1]  # type: ignore[assignment]
        looks = last.attention(tokens)[:, :, 0, 1:].mean(1)
        return looks.gather(1, nearest_points(points, centres, 1)[..., 0])

    def _tokens(self, points: Tensor) -> tuple[Tensor, Tensor]:
        check_clouds(points)
        count = math.ceil(points.shape[1] / self.group)
        rows = torch.arange(len(points), device=points.device).view(-1, 1, 1)
        chosen = farthest_points(points, count)
        centres = points[rows[..., 0], chosen]
        near = nearest_points(centres, points, self.group)
        features = self.points(points)
        middle = features[rows[..., 0], chosen].unsqueeze(2)
        around = features[rows, near] - middle
        groups = self.groups(torch.cat((around, middle.expand_as(around)), 3)).amax(2)
        return torch.cat((self.token.expand(len(points), -1, -1), groups), 1), centres
