r"""One way to see the whole batch across processes, with gradient, so that several ranks compute what one would.

**Why losses need it.** A loss over pairs of samples (RKD, SP, PKT, CC, contrast) computed on each rank's share is
another loss than on the whole batch. Gathered first, every rank computes the same :math:`L(x_1 \dots x_N)`.

**Why the gradient comes out right.** Data parallelism averages gradients over :math:`W` ranks. :func:`gather` sums, in
its backward, what every rank's loss says about a sample, and gives it to the rank that owns the sample. Rank :math:`r`
thus holds :math:`\sum_q \partial L_q / \partial x_r`, and the average over ranks is the gradient of
:math:`\frac1W \sum_q L_q`: the mean of the ranks' losses, which is :math:`L` itself when all ranks compute the same.

**Means over samples** need no gathering, only a factor when shares are uneven: :func:`mean_scale` times the local mean
averages to the global mean, since :math:`\frac1W \sum_r \frac{n_r W}{N} \bar L_r = \frac1N \sum_i L_i`.

**Order.** Rank :math:`r` holds samples :math:`r, r + W, r + 2W, \dots` of the global batch, as strided samplers deal
them out; gathering restores that order. Counts may differ between ranks.

Without a process group everything here is the identity.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from limbeck_core.errors import ShapeError


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(x: Tensor) -> Tensor:
    """Return the samples of all ranks in global order, with gradient.

    Args:
        x: This rank's samples on axis 0, shape ``(n, ...)``; ``n`` may differ between ranks and may be zero, the rest
            of the shape must not. Any dtype. Either every rank's ``x`` requires a gradient or none does: the backward
            pass waits for all of them.

    Returns:
        Shape ``(N, ...)``, N the sum of all n, the same on every rank.

    Raises:
        ShapeError: if ``x`` has no axis, or the ranks' shapes differ beyond axis 0.
    """
    if x.ndim == 0:
        raise ShapeError("gather needs samples on axis 0, got a scalar: reshape it to (1,)")
    if world_size() == 1:
        return x
    return _Gather.apply(x)  # type: ignore[no-any-return]


def mean_scale(count: int | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Factor that makes the mean over a rank's samples average to the mean over all samples.

    Args:
        count: Samples (or kept positions) of this rank.
        device: Where the factor is needed; the process group's backend must reach it.

    Returns:
        A scalar: ``count * world_size / total``; 1 when shares are even, 0 when nothing is left anywhere.
    """
    local = torch.as_tensor(count, dtype=torch.float64, device=device)
    if world_size() == 1:
        return torch.ones_like(local)
    total = all_sum(local)
    return torch.where(total > 0, local * world_size() / total.clamp(min=1e-300), torch.zeros_like(local))


@torch.no_grad()
def all_sum(x: Tensor) -> Tensor:
    """Sum of a tensor over all ranks, without gradient; a new tensor."""
    total = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


@torch.no_grad()
def all_max(x: Tensor) -> Tensor:
    """Largest value over all ranks, entry by entry, without gradient; a new tensor."""
    largest = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        world, rank = dist.get_world_size(), dist.get_rank()
        counts = _all_counts(x)
        order = _global_order(counts, x.device)
        ctx.rank, ctx.counts = rank, counts
        ctx.save_for_backward(order)
        wire = x.to(torch.uint8) if x.dtype == torch.bool else x
        padded = wire.new_zeros((max(counts), *x.shape[1:]))
        padded[: len(x)] = wire
        parts = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(parts, padded.contiguous())
        joined = torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])
        return joined[order].to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (order,) = ctx.saved_tensors
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        by_rank = torch.empty_like(total)
        by_rank[order] = total
        start = sum(ctx.counts[: ctx.rank])
        return by_rank[start : start + ctx.counts[ctx.rank]]


def _all_counts(x: Tensor) -> list[int]:
    """Samples of each rank, after checking that the rest of the shape is the same everywhere."""
    rest = torch.zeros(9, dtype=torch.int64)
    rest[0], rest[1] = len(x), x.ndim
    rest[2 : 2 + min(x.ndim - 1, 7)] = torch.tensor(x.shape[1:8], dtype=torch.int64)
    mine = rest.to(x.device)
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    shapes = torch.stack(parts).tolist()
    if any(shape[1:] != shapes[0][1:] for shape in shapes):
        listed = ", ".join(str((shape[0], *shape[2 : 1 + shape[1]])) for shape in shapes)
        raise ShapeError(
            f"gather needs one shape on all ranks beyond axis 0, got {listed}: pad to a common size before gathering"
        )
    return [shape[0] for shape in shapes]


def _global_order(counts: list[int], device: torch.device) -> Tensor:
    """Positions in the concatenation by rank, in the order in which a strided sampler dealt the samples out."""
    starts = [sum(counts[:rank]) for rank in range(len(counts))]
    dealt = [starts[rank] + i for i in range(max(counts)) for rank in range(len(counts)) if i < counts[rank]]
    return torch.tensor(dealt, dtype=torch.int64, device=device)
