"""Deformable cross-attention of D-FINE's decoder: no projections, and not as many points in each level.

Names of parameters and buffers are those of the released D-FINE checkpoints.

Reference: Zhu et al., Deformable DETR, arXiv:2010.04159, eq. 3; the discrete form is that of Lv et al., RT-DETRv2,
arXiv:2407.17140, section 3.1; without projections in Peng et al., D-FINE, arXiv:2410.13842, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, softmax

from limbeck_core.errors import ShapeError

Sampling = Literal["default", "discrete"]


def _bilinear(value: Tensor, height: int, width: int, locations: Tensor) -> Tensor:
    """``(N, C, H * W)`` at ``(N, Q, P, 2)`` to ``(N, C, Q, P)``; outside the map are zeros."""
    wider = torch.promote_types(value.dtype, locations.dtype)  # a place in half precision would miss its cell
    return grid_sample(
        value.reshape(*value.shape[:-1], height, width).to(wider),
        (2 * locations - 1).to(wider),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )


def _nearest(value: Tensor, height: int, width: int, locations: Tensor) -> Tensor:
    """As :func:`_bilinear`, but the one cell each place rounds to, the border's outside the map."""
    size = torch.tensor([width, height], device=value.device)
    cells = (locations * size + 0.5).long()
    index = cells[..., 1].clamp(0, height - 1) * width + cells[..., 0].clamp(0, width - 1)
    flat = index.flatten(1)[:, None].expand(-1, value.shape[1], -1)
    return value.gather(2, flat).reshape(*value.shape[:2], *index.shape[1:])


def deformable_attention(
    values: Sequence[Tensor],
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    points: Sequence[int],
    *,
    sampling: Sampling = "default",
) -> Tensor:
    """Read every map at a few places for each query and sum what is there, weighted.

    Args:
        values: One map a level, flattened, shape ``(B, heads, C, H_l * W_l)``.
        shapes: Height and width of each.
        locations: Places as fractions of width and height, ``(x, y)``, shape ``(B, Q, heads, P, 2)`` with the points of
            all levels one after another.
        weights: Shape ``(B, Q, heads, P)``.
        points: Number of points in each level, P in total.
        sampling: ``"default"`` interpolates between the four cells around a place, with zeros outside the map;
            ``"discrete"`` takes the cell that the place rounds to, so no gradient reaches ``locations``.

    Returns: Shape ``(B, Q, heads * C)``, in the type of ``weights``.

    Raises:
        ShapeError: if levels, points and tensors do not fit together.
        ValueError: if ``sampling`` is unknown.
    """
    if sampling not in get_args(Sampling):
        raise ValueError(f"sampling must be one of {get_args(Sampling)}, got {sampling!r}")
    if not len(values) == len(shapes) == len(points):
        raise ShapeError(f"got {len(values)} values, {len(shapes)} shapes and points for {len(points)} levels")
    if locations.shape[-2] != sum(points) or weights.shape != locations.shape[:-1]:
        raise ShapeError(
            f"locations must have shape (B, Q, heads, {sum(points)}, 2) and weights the same without the last axis, "
            f"got {tuple(locations.shape)} and {tuple(weights.shape)}"
        )
    batch, queries = weights.shape[:2]
    by_head = locations.transpose(1, 2).flatten(0, 1)  # (B * heads, Q, P, 2)
    read = _bilinear if sampling == "default" else _nearest
    places = torch.split(by_head, list(points), dim=2)
    found = [
        read(value.flatten(0, 1), height, width, level)
        for value, (height, width), level in zip(values, shapes, places, strict=True)
    ]
    share = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B * heads, 1, Q, P)
    out = (torch.cat(found, dim=-1) * share).sum(-1)  # (B * heads, C, Q)
    return out.reshape(batch, -1, queries).transpose(1, 2).to(weights.dtype).contiguous()


class DeformableAttention(nn.Module):
    """Deformable attention around a reference box.

    Offsets are in units of half the box, divided by the number of points of their level. At first a head looks in one
    direction, each head in another, further out from point to point, and weighs all points alike.

    Args:
        width: Width of a query, a multiple of ``heads``.
        heads: Attention heads.
        points: Number of points in each level.
        sampling: As for :func:`deformable_attention`; with ``"discrete"`` the offsets are frozen.
        offset_scale: Unit of an offset as a multiple of the box's width and height.

    Raises:
        ValueError: if ``width`` is not a multiple of ``heads``.
    """

    num_points_scale: Tensor

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        points: Sequence[int] = (3, 6, 3),
        sampling: Sampling = "default",
        offset_scale: float = 0.5,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"the width of a query must be a multiple of the number of heads, got {width} and {heads}")
        self.heads = heads
        self.points = tuple(points)
        self.sampling = sampling
        self.offset_scale = offset_scale
        scale = torch.tensor([1 / count for count in self.points for _ in range(count)])
        self.register_buffer("num_points_scale", scale)
        self.sampling_offsets = nn.Linear(width, heads * sum(self.points) * 2)
        self.attention_weights = nn.Linear(width, heads * sum(self.points))
        self._reset_parameters()
        if sampling == "discrete":
            self.sampling_offsets.requires_grad_(False)

    def _reset_parameters(self) -> None:
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.cat([torch.arange(1, count + 1) for count in self.points])
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((directions[:, None] * steps[:, None]).flatten())
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def forward(
        self, query: Tensor, boxes: Tensor, values: Sequence[Tensor], shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Attend.

        Args:
            query: Shape ``(B, Q, D)``.
            boxes: Reference boxes ``(cx, cy, w, h)`` as fractions of the image, shape ``(B, Q, 4)``.
            values: Maps as for :func:`deformable_attention`.
            shapes: Their heights and widths.

        Returns: Shape ``(B, Q, D)``.
        """
        count = sum(self.points)
        offsets = self.sampling_offsets(query).reshape(*query.shape[:2], self.heads, count, 2)
        weights = softmax(self.attention_weights(query).reshape(*query.shape[:2], self.heads, count), dim=-1)
        scale = self.num_points_scale.to(query.dtype)[:, None]
        reach = boxes[:, :, None, None, 2:] * self.offset_scale
        locations = boxes[:, :, None, None, :2] + offsets * scale * reach
        return deformable_attention(values, shapes, locations, weights, self.points, sampling=self.sampling)
