"""D-FINE's decoder layers, and the loop in which they refine distributions over edge shifts.

Names of parameters and buffers are those of the released D-FINE checkpoints.

Reference: Peng et al., D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement,
arXiv:2410.13842, section 4.1 (fine-grained distribution refinement) and section 5 (target gating layer).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softmax

from limbeck_core.functional.precision import at_least_float32
from limbeck_detection.dfine.attention import DeformableAttention, Sampling
from limbeck_detection.dfine.regression import distance2bbox, integral, weighting_function

_HALF_MAX = 65504  # largest float16; what lies beyond would be infinite under mixed precision
_POSITION_LIMIT = 10.0


def inverse_sigmoid(probabilities: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Logits of probabilities, any shape; those outside ``[eps, 1 - eps]`` have their logits bounded by it."""
    inside = probabilities.clamp(min=0.0, max=1.0)
    return torch.log(inside.clamp(min=eps) / (1 - inside).clamp(min=eps))


class MLP(nn.Module):
    """Linear layers with ReLUs between them.

    Args:
        in_features: Width of the input.
        hidden: Width inside.
        out_features: Width of the output.
        layers: Number of linear layers.
        zero_last: Whether the last layer is zero at first, so that the whole starts as zero.
    """

    def __init__(self, in_features: int, hidden: int, out_features: int, layers: int, *, zero_last: bool = False):
        super().__init__()
        widths = [in_features, *[hidden] * (layers - 1), out_features]
        linear = [nn.Linear(a, b) for a, b in pairwise(widths)]
        if zero_last:
            nn.init.zeros_(linear[-1].weight)
            nn.init.zeros_(linear[-1].bias)
        self.layers = nn.ModuleList(linear)

    def forward(self, features: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        for layer in self.layers[:-1]:
            features = relu(layer(features))
        out: Tensor = self.layers[-1](features)
        return out


class Gate(nn.Module):
    r"""Target gating layer: how much of a query stays and how much of what attention found comes in.

    .. math:: out = LayerNorm(g_1 \circ x_1 + g_2 \circ x_2), \quad [g_1, g_2] = \sigma(W [x_1; x_2] + b)

    At first all gates are one half.

    Args:
        width: Width of a query.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * width, 2 * width)
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, query: Tensor, attended: Tensor) -> Tensor:
        """Two tensors ``(..., D)`` to one."""
        keep, take = torch.sigmoid(self.gate(torch.cat([query, attended], dim=-1))).chunk(2, dim=-1)
        out: Tensor = self.norm(keep * query + take * attended)
        return out


class LQE(nn.Module):
    """Location quality estimator: how sharp the four edge distributions are raises or lowers all class logits.

    Zero at first.

    Args:
        top: How many of the largest probabilities of an edge are looked at, with their mean.
        hidden: Width inside.
        layers: Linear layers.
        reg_max: Number of bins of an edge, less one.

    Reference: Li et al., Generalized Focal Loss V2, arXiv:2011.12885, section 3.2, as D-FINE uses it.
    """

    def __init__(self, *, top: int = 4, hidden: int = 64, layers: int = 2, reg_max: int = 32) -> None:
        super().__init__()
        self.top = top
        self.bins = reg_max + 1
        self.reg_conf = MLP(4 * (top + 1), hidden, 1, layers, zero_last=True)

    def forward(self, logits: Tensor, corners: Tensor) -> Tensor:
        """Correct class logits.

        Args:
            logits: Shape ``(B, Q, C)``.
            corners: Logits of the edge distributions, shape ``(B, Q, 4 * (reg_max + 1))``.

        Returns: Shape ``(B, Q, C)``.
        """
        edges = at_least_float32(corners).reshape(*corners.shape[:-1], 4, self.bins)
        largest = softmax(edges, dim=-1).topk(self.top, dim=-1).values
        sharpness = torch.cat([largest, largest.mean(dim=-1, keepdim=True)], dim=-1)
        out: Tensor = logits + self.reg_conf(sharpness.flatten(-2).to(logits.dtype))
        return out


class DecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the maps through the gate, and a feed-forward part.

    Args:
        width: Width of a query.
        heads: Attention heads.
        feedforward: Width inside the feed-forward part, whose activation is ReLU.
        points: Deformable points in each level.
        dropout: Probability of dropping an attention weight or a value.
        sampling: As for :func:`limbeck_detection.dfine.attention.deformable_attention`.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        feedforward: int,
        points: Sequence[int],
        dropout: float = 0.0,
        sampling: Sampling = "default",
    ) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = DeformableAttention(width, heads=heads, points=points, sampling=sampling)
        self.gateway = Gate(width)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(
        self,
        query: Tensor,
        positions: Tensor,
        boxes: Tensor,
        values: Sequence[Tensor],
        shapes: Sequence[tuple[int, int]],
        blocked: Tensor | None = None,
    ) -> Tensor:
        """Renew the queries.

        Args:
            query: Shape ``(B, Q, D)``.
            positions: Added to queries and keys, shape ``(B, Q, D)``.
            boxes: Reference boxes, shape ``(B, Q, 4)``.
            values: Maps, one a level, shape ``(B, heads, D / heads, H_l * W_l)``.
            shapes: Their heights and widths.
            blocked: Which query (row) may not see which (column), boolean, shape ``(Q, Q)``.

        Returns: Shape ``(B, Q, D)``.
        """
        placed = query + positions
        attended, _ = self.self_attn(placed, placed, query, attn_mask=blocked, need_weights=False)
        query = self.norm1(query + self.dropout(attended))
        found = self.cross_attn(query + positions, boxes, values, shapes)
        query = self.gateway(query, self.dropout(found))
        forwarded = self.linear2(self.dropout(relu(self.linear1(query))))
        out: Tensor = self.norm3((query + self.dropout(forwarded)).clamp(-_HALF_MAX, _HALF_MAX))
        return out


class RefinementHeads(NamedTuple):
    """What the decoder's loop needs from the detector around it.

    Args:
        score: Class logits from queries, one module a layer.
        box: Logits of the edge distributions from queries, one module a layer.
        first_box: Correction of the first boxes, as logits, from the first layer's queries.
        position: Position of a query from its box.
    """

    score: nn.ModuleList
    box: nn.ModuleList
    first_box: nn.Module
    position: nn.Module


class Refinement(NamedTuple):
    """What the decoder's loop returns; lists hold one tensor a layer, in evaluation only that of ``eval_idx``.

    Args:
        logits: Class logits ``(B, Q, C)``.
        boxes: Boxes ``(cx, cy, w, h)`` as fractions of the image, ``(B, Q, 4)``.
        corners: Logits of the edge distributions ``(B, Q, 4 * (reg_max + 1))``.
        ref_points: Reference boxes whose edges all layers move, without gradient, ``(B, Q, 4)``.
        first_logits: Class logits of the first layer without quality estimate; ``None`` in the deploy form.
        first_boxes: Boxes of the first layer's ordinary head, ``(B, Q, 4)``.
    """

    logits: list[Tensor]
    boxes: list[Tensor]
    corners: list[Tensor]
    ref_points: Tensor
    first_logits: Tensor | None
    first_boxes: Tensor


class RefinementDecoder(nn.Module):
    """Decoder layers that refine one set of edge distributions.

    The first layer predicts ordinary boxes. From then on every layer adds to the logits of four edge distributions,
    whose expected shifts move the edges of those first boxes.

    Args:
        layers: The layers.
        heads: Attention heads, into which the maps are split.
        reg_max: Number of bins of an edge, less one.
        up: Shape ``(1,)``; see :func:`limbeck_detection.dfine.regression.weighting_function`.
        reg_scale: Shape ``(1,)``.
        eval_idx: Layer whose output counts in evaluation.
    """

    project: Tensor | None

    def __init__(
        self,
        layers: Sequence[DecoderLayer],
        *,
        heads: int,
        reg_max: int,
        up: nn.Parameter,
        reg_scale: nn.Parameter,
        eval_idx: int,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.lqe_layers = nn.ModuleList(LQE(reg_max=reg_max) for _ in layers)
        self.heads = heads
        self.reg_max = reg_max
        self.up = up
        self.reg_scale = reg_scale
        self.eval_idx = eval_idx
        self.register_buffer("project", None, persistent=False)

    def shifts(self) -> Tensor:
        """What each bin stands for, shape ``(reg_max + 1,)``; stored once in the deploy form."""
        return weighting_function(self.reg_max, self.up, self.reg_scale) if self.project is None else self.project

    def forward(
        self,
        query: Tensor,
        ref_logits: Tensor,
        memory: Tensor,
        shapes: Sequence[tuple[int, int]],
        heads: RefinementHeads,
        blocked: Tensor | None = None,
    ) -> Refinement:
        """Refine.

        Args:
            query: Content of the queries, shape ``(B, Q, D)``.
            ref_logits: Their boxes before the sigmoid, shape ``(B, Q, 4)``.
            memory: Tokens of all maps, fine to coarse, shape ``(B, N, D)``.
            shapes: Heights and widths of the maps.
            heads: The prediction heads.
            blocked: As for :class:`DecoderLayer`.

        Returns: See :class:`Refinement`.
        """
        split = memory.reshape(*memory.shape[:2], self.heads, -1).permute(0, 2, 3, 1)
        values = torch.split(split, [height * width for height, width in shapes], dim=-1)
        shifts = self.shifts()
        boxes = torch.sigmoid(ref_logits)
        result = Refinement([], [], [], boxes, None, boxes)
        corners: Tensor | None = None
        before: Tensor | None = None  # queries of the layer before, without gradient
        for i, layer in enumerate(self.layers):
            positions = heads.position(boxes.to(query.dtype)).clamp(-_POSITION_LIMIT, _POSITION_LIMIT)
            query = layer(query, positions, boxes, values, shapes, blocked)
            if i == 0:
                first = torch.sigmoid(heads.first_box(query) + inverse_sigmoid(boxes))
                first_logits = heads.score[0](query) if self.training else None
                result = result._replace(ref_points=first.detach(), first_boxes=first, first_logits=first_logits)
            change = heads.box[i](query if before is None else query + before)
            corners = change if corners is None else corners + change
            moved = distance2bbox(result.ref_points, integral(corners, shifts), self.reg_scale)
            if self.training or i == self.eval_idx:
                result.logits.append(self.lqe_layers[i](heads.score[i](query), corners))
                result.boxes.append(moved)
                result.corners.append(corners)
            if not self.training and i == self.eval_idx:
                break
            boxes, before = moved.detach(), query.detach()
        return result
