"""Measure what DSD costs: a training step over deep supervision alone, its memory, and its divergence by itself.

    python tools/bench_medical.py                 # some minutes on one core
    python tools/bench_medical.py --quick         # the same on tiny inputs, in seconds: that it runs
    python tools/bench_medical.py --only unet,kl --pairs 30
    python tools/bench_medical.py --json steps.json

``unet`` and ``dynunet``: the time of a whole step (forward, losses, backward, optimiser) with both divergences over
that of the same network with deep supervision alone; bar 1.10. Beside it the bytes that a step keeps for its backward
pass, counted tensor by tensor. ``kl``: six divergences between seven of eight maps of scores ``(1, 4, 48, 48, 48)``,
forward and backward, over the plain form in PyTorch. Measured as in ``bench_core.py``: one process, one thread,
interleaved pairs, processor time, the median with its 95 % bootstrap interval; a bar is met when the lower end is below
it.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from bench_core import Ratio, interleaved, keep_freed_memory, processor_time, summary
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet, UNet
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import kl_div, log_softmax

from limbeck_medical.dsd import DSDDistiller, self_distillation_loss

BAR = 1.10  # the paper calls the cost negligible
CLASSES, TEMPERATURE, QUICK_PAIRS = 4, 3.0, 2
_FIVE: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": CLASSES,
    "kernel_size": [3] * 5,
    "strides": [1, 2, 2, 2, 2],
    "upsample_kernel_size": [2] * 4,
}
# the paper's nnU-Net, and a U-Net with residual units
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "unet": (
        lambda: UNet(3, 1, CLASSES, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2),
        lambda: UNet(3, 1, CLASSES, (4, 4, 8, 8), (2, 2, 2)),
    ),
    "dynunet": (
        lambda: DynUNet(filters=[16, 32, 64, 128, 256], **_FIVE),
        lambda: DynUNet(filters=[4, 4, 4, 8, 8], **_FIVE),
    ),
}
NAMES = (*NETWORKS, "kl")


class Step:
    """A training step on random crops."""

    def __init__(self, network: nn.Module, side: int, count: int, *, divergences: bool) -> None:
        weight = 1.0 if divergences else 0.0
        options: dict[str, Any] = {} if divergences else {"encoder": ()}
        self.model = DSDDistiller(
            network,
            input_shape=(1, side, side, side),
            task_loss=DiceCELoss(softmax=True, to_onehot_y=True),
            temperature=TEMPERATURE,
            decoder_weight=weight,
            **options,
        ).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        generator = torch.Generator().manual_seed(0)
        self.batch = {
            "inputs": torch.randn(count, 1, side, side, side, generator=generator),
            "targets": torch.randint(0, CLASSES, (count, 1, side, side, side), generator=generator),
        }

    def loss(self) -> Tensor:
        """Run forward."""
        return torch.stack([value for name, value in self.model(self.batch).items() if "loss" in name]).sum()

    def __call__(self) -> None:
        """Train."""
        loss = self.loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def saved_bytes(self) -> int:
        """Bytes that a forward pass keeps for the backward pass, each storage once, parameters left out."""
        seen = {p.untyped_storage().data_ptr(): 0 for p in self.model.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen.setdefault(storage.data_ptr(), storage.nbytes())
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            self.loss()
        return sum(seen.values())


def bench_step(name: str, pairs: int, quick: bool) -> Ratio:
    """Compare DSD's step with deep supervision's."""
    make = NETWORKS[name][int(quick)]
    side, count = (32, 1) if quick else (48, 1)
    steps = []
    for divergences in (True, False):
        torch.manual_seed(0)
        steps.append(Step(make(), side, count, divergences=divergences))
    ours, plain = steps
    kept = [step.saved_bytes() / 2**20 for step in steps]
    ratios = interleaved(ours, plain, pairs, 0.0)
    title = f"{name}: DSD over deep supervision ({side}^3, batch {count})"
    return replace(summary("step", title, ratios), note=f"kept for backward: {kept[0]:.1f} over {kept[1]:.1f} MiB")


def plain_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """The divergence as one would write it: teacher not detached, mean over voxels."""
    each = kl_div(
        log_softmax(student / TEMPERATURE, 1), log_softmax(teacher / TEMPERATURE, 1), reduction="none", log_target=True
    )
    return each.sum(1).mean() * TEMPERATURE**2


def bench_kl(pairs: int, quick: bool) -> Ratio:
    """Compare our six divergences with the plain ones."""
    side = 8 if quick else 48
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(1, CLASSES, side, side, side, generator=generator).requires_grad_() for _ in range(8)]

    def run(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        for leaf in maps:
            leaf.grad = None
        decoder = [loss(student, maps[0]) for student in maps[1:4]]
        encoder = [loss(student, maps[4]) for student in maps[5:]]
        torch.stack([*decoder, *encoder]).sum().backward()

    def ours() -> None:
        run(lambda student, teacher: self_distillation_loss(student, teacher, temperature=TEMPERATURE))

    def plain() -> None:
        run(plain_divergence)

    title = f"kl: six divergences of (1, {CLASSES}, {side}, {side}, {side})"
    row = summary("loss", title, interleaved(ours, plain, pairs, 0.0))
    milliseconds = 1000 * min(processor_time(ours, 1) for _ in range(5))
    return replace(row, note=f"{milliseconds:.1f} ms forward and backward")


def verdict(row: Ratio, quick: bool) -> str:
    """Whether the bar is met; on tiny inputs nothing, since there everything but the network takes the time."""
    if quick:
        return ""
    return "ok" if row.low <= BAR else f"SLOWER than the bar {BAR:g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny inputs and few pairs: only that it runs")
    parser.add_argument("--only", metavar="NAME,...", default=",".join(NAMES), help="these instead of all")
    parser.add_argument("--pairs", metavar="N", type=int, help="pairs a comparison (default: 20; 2 with --quick)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the ratios as JSON too")
    options = parser.parse_args(arguments)
    names = options.only.split(",")
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        parser.error(f"there is nothing called {', '.join(unknown)} to measure; there are {', '.join(NAMES)}")
    pairs = options.pairs or (QUICK_PAIRS if options.quick else 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.disable()  # a collection would fall on one side of a pair
    rows, words = [], []
    try:
        print(f"processor time; {platform.machine()} CPU, 1 thread, torch {torch.__version__}")
        for name in names:
            gc.collect()
            rows.append(bench_kl(pairs, options.quick) if name == "kl" else bench_step(name, pairs, options.quick))
            words.append(verdict(rows[-1], options.quick))
            row = rows[-1]
            interval = f"[{row.low:.3f}, {row.high:.3f}]"
            print(f"{row.name:<54} {row.ratio:6.3f}  {interval}  {row.pairs:3d}  {row.note}  {words[-1]}", flush=True)
    finally:
        gc.enable()
        torch.set_num_threads(threads)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return int(any(word.startswith("SLOWER") for word in words))


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
