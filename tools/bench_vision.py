"""Measure what self-distillation adds to a training step: PS-KD and USKD over cross-entropy alone.

    python tools/bench_vision.py                  # about ten minutes on one core
    python tools/bench_vision.py --quick          # the same on tiny inputs, in seconds: that it runs
    python tools/bench_vision.py --only uskd --pairs 60
    python tools/bench_vision.py --json steps.json

A ratio is the time of a whole step (forward, losses, backward, optimiser) over that of cross-entropy in a loop by hand.
``distiller`` is cross-entropy inside of a Distiller without any match: what the wrapper alone costs. ``ps_kd`` and
``uskd`` come on top of it. ``lsskd`` has four times the images and its branches; it is shown without a bar. Measured
as in ``bench_core.py``: one process, one thread, interleaved pairs, processor time, the median with its 95 % bootstrap
interval; a bar is met when the lower end of the interval is below it.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from bench_core import Images, Ratio, interleaved, keep_freed_memory, summary
from torch import Tensor, nn

from limbeck_core import Distiller, Match, PastSelf
from limbeck_core.losses import SoftTargetCrossEntropyLoss
from limbeck_core.schedules import Complement, Progress, WarmUp
from limbeck_vision.methods.lsskd import LayeredDistiller
from limbeck_vision.methods.uskd import uskd_match
from limbeck_vision.models import StagedModel, resnet8, resnet20

BAR = 1.03  # PS-KD and USKD add under 3 % to a step
CLASSES, SAMPLES, EPOCHS = 100, 50_000, 300
QUICK_PAIRS = 2


def plain(student: StagedModel) -> nn.Module:
    """Cross-entropy inside of a distiller."""
    return Distiller(student, task_loss=nn.CrossEntropyLoss())


def ps_kd(student: StagedModel) -> nn.Module:
    """PS-KD with a memory of CIFAR-100's size."""
    past = WarmUp(0.8)
    matches = {"ps_kd": Match(SoftTargetCrossEntropyLoss(), "fc", "", weight=past)}
    memory = {"past": PastSelf(SAMPLES, CLASSES, logits="fc")}
    return Distiller(student, memory, matches, task_loss=nn.CrossEntropyLoss(), task_weight=Complement(past))


def uskd(student: StagedModel) -> nn.Module:
    """USKD with its weak head at the last stage but one."""
    return Distiller(student, None, {"uskd": uskd_match(student)}, task_loss=nn.CrossEntropyLoss())


def lsskd(student: StagedModel) -> nn.Module:
    """LSSKD with a memory of a tenth of CIFAR-100, whose size does not change the time."""
    return LayeredDistiller(student, SAMPLES // 10, task_loss=nn.CrossEntropyLoss())


METHODS: dict[str, Callable[[StagedModel], nn.Module]] = {
    "distiller": plain,
    "ps_kd": ps_kd,
    "uskd": uskd,
    "lsskd": lsskd,
}
WITH_BAR = ("ps_kd", "uskd")


class Step:
    """A training step on the next of some batches; by hand without a method."""

    def __init__(self, student: StagedModel, batches: Sequence[dict[str, Tensor]], method: str | None) -> None:
        self.student = student.train()
        self.model = METHODS[method](student).train() if method else None
        if isinstance(self.model, Distiller):
            self.model.set_progress(Progress(epoch=EPOCHS // 2, max_epochs=EPOCHS))
        trained = self.model or student
        self.optimizer = torch.optim.SGD(trained.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.batches = batches
        self.number = 0

    def __call__(self) -> Tensor:
        """Train; return the loss."""
        batch = self.batches[self.number % len(self.batches)]
        self.number += 1
        if self.model is None:
            loss = nn.functional.cross_entropy(self.student(batch["inputs"]), batch["targets"])
        else:
            loss = sum(self.model(batch).values(), start=torch.zeros(()))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def bench(method: str, pairs: int, quick: bool) -> Ratio:
    """Compare a method's step with one by hand."""
    make, size, count = (resnet8, 16, 8) if quick else (resnet20, 32, 64)
    data = Images(4 * count, size)
    ids = torch.arange(4 * count) * 11 % (SAMPLES // 10)
    parts = [slice(first, None, 4) for first in range(4)]
    batches = [{"inputs": data.inputs[p], "targets": data.targets[p], "ids": ids[p]} for p in parts]

    def student() -> StagedModel:
        torch.manual_seed(0)
        return make(num_classes=CLASSES, normalization=None)

    by_hand, ours = Step(student(), batches, None), Step(student(), batches, method)
    ratios = interleaved(ours, by_hand, pairs, 0.0)
    title = f"{method} over cross-entropy by hand ({make.__name__}, {size}x{size}, batch {count})"
    return summary("step", title, ratios)


def verdict(row: Ratio, method: str, quick: bool) -> str:
    """Whether the bar is met; on tiny inputs nothing, since there everything but the network takes the time."""
    if quick or method not in WITH_BAR:
        return ""
    return "ok" if row.low <= BAR else f"SLOWER than the bar {BAR:g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny inputs and few pairs: only that it runs")
    parser.add_argument("--only", metavar="NAME,...", default=",".join(METHODS), help="these instead of all")
    parser.add_argument("--pairs", metavar="N", type=int, help="pairs a comparison (default: 30; 2 with --quick)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the ratios as JSON too")
    options = parser.parse_args(arguments)
    names = options.only.split(",")
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        parser.error(f"there is no method {', '.join(unknown)} to measure; there are {', '.join(METHODS)}")
    pairs = options.pairs or (QUICK_PAIRS if options.quick else 30)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.disable()  # a collection would fall on one side of a pair
    rows, words = [], []
    try:
        print(f"processor time of a step; {platform.machine()} CPU, 1 thread, torch {torch.__version__}")
        for name in names:
            gc.collect()
            rows.append(bench(name, pairs, options.quick))
            words.append(verdict(rows[-1], name, options.quick))
            row = rows[-1]
            print(f"{row.name:<66} {row.ratio:7.3f}  [{row.low:.3f}, {row.high:.3f}]  {row.pairs:3d}  {words[-1]}")
    finally:
        gc.enable()
        torch.set_num_threads(threads)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return int(any(word.startswith("SLOWER") for word in words))


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
