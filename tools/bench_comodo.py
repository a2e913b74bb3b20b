"""Measure COMODO's queue against the same step by hand: rows joined anew, softmax, and the oldest rows cut off.

    python tools/bench_comodo.py                        # 16384 rows of 128 numbers, batches of 64
    python tools/bench_comodo.py --rows 65536 --batch 128

As in ``bench_core.py``: one process, one thread, interleaved pairs, processor time, the median with its 95 % bootstrap
interval. Both compute the same loss and the same gradient, which is checked first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from bench_core import interleaved, summary
from torch import Tensor
from torch.nn.functional import log_softmax, normalize, softmax

from limbeck_audiovideo.comodo import SimilarityQueueLoss


class ByHand:
    """The queue as a tensor that each step replaces."""

    def __init__(self, rows: Tensor) -> None:
        self.queue = rows.clone()

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss, and go on with a new queue."""
        rows = torch.cat([self.queue, teacher])
        target = softmax(teacher @ rows.T / 0.1, dim=1)
        loss = -(target * log_softmax(normalize(student, dim=1) @ rows.T / 0.05, dim=1)).sum() / len(student)
        self.queue = rows[len(teacher) :].clone()
        return loss


def main(arguments: Sequence[str] | None = None) -> int:
    """Check that both agree, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16384)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=40)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = normalize(torch.randn(options.rows, options.dim), dim=1)
    teacher = normalize(torch.randn(options.batch, options.dim), dim=1)
    student = torch.randn(options.batch, options.dim, requires_grad=True)
    ours, theirs = SimilarityQueueLoss(options.dim, options.rows), ByHand(rows)
    ours.enqueue(rows)

    def step(loss: SimilarityQueueLoss | ByHand) -> tuple[Tensor, Tensor]:
        value = loss(student, teacher)
        return value.detach(), torch.autograd.grad(value, student)[0]

    for mine, other in zip(step(ours), step(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    ratios = interleaved(lambda: step(ours), lambda: step(theirs), options.pairs, 0.0)
    row = summary("queue", "comodo", ratios)
    print(
        f"queue of {options.rows} x {options.dim}, batch {options.batch}: {row.ratio:.3f} of a step by hand "
        f"({row.low:.3f} to {row.high:.3f}, {row.pairs} pairs)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
