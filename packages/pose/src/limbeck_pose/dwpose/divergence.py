"""Divergence of sharpened scores along the last axis, with its gradient worked out beforehand.

A whole-body batch has 64 x 133 x 896 scores, so that each pass over them shows in a training step. Both softmaxes are
taken once; their normalisers follow from their maxima, and the gradient is their difference. On the CPU it goes piece
by piece, so that a piece stays in the cache from the first pass to the last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from limbeck_core.functional.precision import at_least_float32

_PIECE = 65_536  # numbers of a piece: a few of its tensors fit a core's cache


def sharpened_divergence(scores: Tensor, reference: Tensor, sharpness: float) -> Tensor:
    r"""Divergence from the sharpened reference to the sharpened scores.

    .. math:: KL(p \,\|\, q) = \beta \sum_b p_b (r_b - s_b) - \log \sum_b e^{\beta r_b} + \log \sum_b e^{\beta s_b},
       \qquad p = \sigma(\beta r), \; q = \sigma(\beta s), \qquad \nabla_s = \beta (q - p)

    Args:
        scores: ``(..., B)``.
        reference: Same shape. Gradients never flow into it.
        sharpness: Factor :math:`\beta` on both.

    Returns:
        Nats, ``(...)``, in float32 or better. It can be differentiated once.
    """
    divergence: Tensor = _Divergence.apply(at_least_float32(scores), at_least_float32(reference.detach()), sharpness)
    return divergence


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, reference: Tensor, sharpness: float) -> Tensor:
        rows, others = (tensor.reshape(-1, tensor.shape[-1]) for tensor in (scores, reference))
        difference = torch.empty_like(rows)
        divergence = rows.new_empty(len(rows))
        size = max(_PIECE // max(rows.shape[1], 1), 1) if rows.device.type == "cpu" else max(len(rows), 1)
        for start in range(0, len(rows), size):
            piece = slice(start, start + size)
            s, r, q = rows[piece], others[piece], difference[piece]
            p = r * sharpness
            torch.softmax(p, -1, out=p)
            torch.mul(s, sharpness, out=q)
            torch.softmax(q, -1, out=q)
            # the largest probability is exp(largest score - log of the sum)
            log_sums = sharpness * (s.amax(-1) - r.amax(-1)) - (q.amax(-1) / p.amax(-1)).log()
            divergence[piece] = sharpness * torch.linalg.vecdot(p, r - s) + log_sums
            q.sub_(p)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(difference.view(scores.shape))
            ctx.sharpness = sharpness
        return divergence.view(scores.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (difference,) = ctx.saved_tensors
        return difference * (ctx.sharpness * gradient).unsqueeze(-1), None, None
