"""Measure what one batch of views, and one convolution for all experts, save over a loop (SLA, MDCS).

    python tools/bench_batched.py                 # a few minutes on one core
    python tools/bench_batched.py --quick         # the same on tiny inputs, in seconds: that it runs
    python tools/bench_batched.py --pairs 60

A ratio is the time of a loop over that of the batch, so that more than 1 is a gain: of forward and backward through the
same weights, with equal values but for batch norm, which sees all views of a batch together and those of a loop one by
one. Measured as in ``bench_core.py``: one process, one thread, interleaved pairs, processor time, the median with its
95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
from collections.abc import Callable, Sequence

import torch
from bench_core import Ratio, interleaved, keep_freed_memory, summary
from torch import Tensor

from limbeck_vision.methods.mdcs import ExpertResNet, expert_resnet8, expert_resnet32
from limbeck_vision.methods.sla import transformed_views
from limbeck_vision.models import resnet8, resnet20

Step = Callable[[], Tensor]
QUICK_PAIRS = 2


def views(size: int, batch: int) -> tuple[str, Step, Step]:
    """Four turns of every image: one pass over them all, against a pass for each turn."""
    make = resnet8 if size <= 8 else resnet20
    torch.manual_seed(0)
    model, images = make(num_classes=100).train(), torch.rand(batch, 3, size, size)

    def batched() -> Tensor:
        model.zero_grad()
        loss = model(transformed_views(images)).square().mean()
        loss.backward()
        return loss.detach()

    def looped() -> Tensor:
        model.zero_grad()
        logits = [model(torch.rot90(images, turn, (2, 3))) for turn in range(4)]
        loss = torch.stack(logits, 1).square().mean()
        loss.backward()
        return loss.detach()

    return f"SLA's four turns, {make.__name__}, {size}x{size}, batch {batch}", batched, looped


def experts(size: int, batch: int) -> tuple[str, Step, Step]:
    """Three experts on shared features: grouped convolutions, against a network for each."""
    make = expert_resnet8 if size <= 8 else expert_resnet32
    torch.manual_seed(0)
    model = make(num_classes=100).train()
    alone: list[ExpertResNet] = [model.expert(index) for index in range(model.num_experts)]
    features = model.shared(torch.rand(batch, 3, size, size)).detach()

    def batched() -> Tensor:
        model.zero_grad()
        loss = model.private(features).square().mean()
        loss.backward()
        return loss.detach()

    def looped() -> Tensor:
        for expert in alone:
            expert.zero_grad()
        loss = torch.cat([expert.private(features) for expert in alone], 1).square().mean()
        loss.backward()
        return loss.detach()

    return f"MDCS's three experts, {make.__name__}, {size}x{size}, batch {batch}", batched, looped


CASES = ((views, 8, 64), (views, 32, 16), (experts, 8, 64), (experts, 32, 16))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny inputs and few pairs: only that it runs")
    parser.add_argument("--pairs", metavar="N", type=int, help="pairs a comparison (default: 30; 2 with --quick)")
    options = parser.parse_args(arguments)
    pairs = options.pairs or (QUICK_PAIRS if options.quick else 30)
    keep_freed_memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.disable()  # a collection would fall on one side of a pair
    try:
        print(f"loop over batch, processor time; {platform.machine()} CPU, 1 thread, torch {torch.__version__}")
        for case, size, batch in CASES:
            if options.quick and size > 8:
                continue
            gc.collect()
            title, batched, looped = case(size, 4 if options.quick else batch)
            row: Ratio = summary("batched", title, interleaved(looped, batched, pairs, 0.0))
            print(f"{row.name:<66} {row.ratio:7.3f}  [{row.low:.3f}, {row.high:.3f}]  {row.pairs:3d}", flush=True)
    finally:
        gc.enable()
        torch.set_num_threads(threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
