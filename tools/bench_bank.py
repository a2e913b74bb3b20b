"""Measure the teacher bank and the fast teacher: steps, forwards, bytes, and reading at a million samples.

    python tools/bench_bank.py                  # everything; a few minutes on one core
    python tools/bench_bank.py --quick          # the same on tiny inputs, in seconds: that it runs
    python tools/bench_bank.py --only step,forward --pairs 60
    python tools/bench_bank.py --json bank.json

Ratios are measured as in ``bench_core.py``: one process, one thread, interleaved pairs, processor time, the median with
its 95 % bootstrap interval. A ratio here is the old time over the new one, so above 1 is faster. Files are in memory
when they are read (they were just written): what is measured is the bank, not the disk. A bar is met when the lower end
of the interval is above it.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_core import Images, interleaved, keep_freed_memory, summary
from torch import Tensor, nn

from limbeck_core import Distiller, Match
from limbeck_core.bank import Bank, BankTeacher, BankWriter
from limbeck_core.bank.encodings import Column, TopScores
from limbeck_core.bank.storage import Manifest, ShardWriter, create
from limbeck_core.bank.writing import size_text
from limbeck_core.engine.sampler import build_dataloader, fetch
from limbeck_core.fast_teacher import FastTeacher
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.models import resnet8, resnet14, resnet20, resnet56

PARTS = ("step", "forward", "bytes", "reading")
BAR_STEP, BAR_FORWARD = 1.7, 1.25
CLASSES = 100
QUICK_PAIRS = 2


# ---------------------------------------------------------------------- steps and forwards


def trained(model: nn.Module, size: int) -> nn.Module:
    """A model whose running statistics are those of its inputs, as after training."""
    with torch.no_grad():
        for _ in range(20):
            model.train()(torch.randn(64, 3, size, size))
    return model.eval()


def distiller(student: nn.Module, teacher: Any) -> Distiller:
    """Classical distillation on the logits."""
    match = Match(KLDivergenceLoss(temperature=4.0), "fc", "fc", weight=0.9)
    return Distiller(student, teacher, {"kd": match}, task_loss=nn.CrossEntropyLoss())


class Steps:
    """Training steps over prepared batches."""

    def __init__(self, model: Distiller, batches: Sequence[Any]) -> None:
        self.model, self.batches, self.number = model.train(), batches, 0
        self.optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def __call__(self) -> None:
        """Take the next step."""
        losses = self.model(self.batches[self.number % len(self.batches)])
        self.number += 1
        self.optimiser.zero_grad()
        sum(losses.values()).backward()
        self.optimiser.step()


def bench_step(pairs: int, quick: bool, folder: Path) -> list[dict[str, Any]]:
    """A step with a live teacher over one that reads a bank, for several encodings."""
    size, batch, count = (16, 8, 32) if quick else (32, 64, 1024)
    small, large = (resnet8, resnet14) if quick else (resnet20, resnet56)
    torch.manual_seed(0)
    teacher, data = trained(large(), size), Images(count, size)
    loader = build_dataloader({"dataset": data, "batch_size": batch, "views": 1, "view_seed": 0}, seed=1, training=True)
    iterator = iter(loader)
    batches = [fetch(iterator) for _ in range(len(loader))]
    rows = []
    for encoding in ("exact", "float16", "top16"):
        place = folder / encoding
        BankWriter(
            distiller(small(), teacher), {"dataset": data, "batch_size": batch}, place, encoding=encoding
        ).write()
        sides = []
        for source in (teacher, BankTeacher(place)):
            torch.manual_seed(1)
            sides.append(Steps(distiller(small(), source), batches))
        ratios = [1 / ratio for ratio in interleaved(sides[1], sides[0], pairs, 0.0 if quick else 0.2)]
        rows.append(_row("step", f"live teacher / bank, {encoding}", ratios, BAR_STEP))
    return rows


def bench_forward(pairs: int, quick: bool, folder: Path) -> list[dict[str, Any]]:
    """A forward of the plain frozen teacher over one of the teacher that chose its speed-ups."""
    size, batch = (16, 8) if quick else (32, 64)
    torch.manual_seed(0)
    model = trained((resnet14 if quick else resnet56)(), size)
    inputs = {"inputs": torch.randn(batch, 3, size, size)}
    plain = distiller(resnet8(), model)
    fast = distiller(resnet8(), FastTeacher(model, seconds=0.5 if quick else 10.0))
    sides = [_forward(fast, inputs), _forward(plain, inputs)]
    error = float((sides[0]() - sides[1]()).abs().max() / sides[1]().abs().max())
    chosen: Any = fast.teacher
    for line in chosen.explain().splitlines():
        print("  ", line)
    ratios = [1 / ratio for ratio in interleaved(sides[0], sides[1], pairs, 0.0 if quick else 0.2)]
    note = f"{', '.join(chosen.choice) or 'nothing'} chosen; off by {error:.1e}"
    return [_row("forward", "plain teacher / fast teacher", ratios, BAR_FORWARD, note)]


def _forward(model: Distiller, batch: dict[str, Tensor]) -> Any:
    def run() -> Tensor:
        (value,) = model.read_teachers(batch, ["teacher"])["teacher"].values()
        result: Tensor = value
        return result

    return run


def _row(group: str, name: str, ratios: list[float], bar: float, note: str = "") -> dict[str, Any]:
    found = summary(group, name, ratios, note)
    row = {"group": group, "name": name, "ratio": found.ratio, "low": found.low, "high": found.high, "bar": bar}
    met = "meets" if found.low >= bar else "misses"
    judged = f", {met} {bar}" if len(ratios) > QUICK_PAIRS else ""
    print(f"{name}: {found.ratio:.2f} ({found.low:.2f} to {found.high:.2f}){judged}; {note}".rstrip("; "))
    return row | {"note": note}


# ---------------------------------------------------------------------- bytes


def limit_of(column: Column) -> float:
    """Bytes a sample that the numbers themselves need, whatever the file: of top scores also which classes they are."""
    codec = column.codec()
    if not isinstance(codec, TopScores):
        return float(codec.size)
    which = math.log2(math.comb(codec.classes, codec.count)) / 8
    return codec.places * (4 + 2 * codec.count + which)


def bench_bytes(pairs: int, quick: bool, folder: Path) -> list[dict[str, Any]]:
    """Bytes a sample on the disk, all overheads counted, against what the numbers need."""
    cases = [
        ("100 logits", (100,), "exact"),
        ("100 logits", (100,), "float16"),
        ("100 logits", (100,), "top16"),
        ("1000 logits", (1000,), "top32"),
        ("50257 logits", (50257,), "top64"),
        ("64 x 8 x 8 features", (64, 8, 8), "float16"),
    ]
    rows = []
    for name, shape, encoding in cases:
        column = Column("x", shape, "float32", encoding)
        made = _manifest(50_000, [column], 784)
        each, limit, plain = made.size / made.samples, limit_of(column), 4 * math.prod(shape)
        print(
            f"{name}, {encoding}: {each:.1f} bytes each, {each / limit:.3f} of the limit, {plain / each:.1f}x smaller"
        )
        rows.append({"group": "bytes", "name": f"{name}, {encoding}", "bytes": each, "limit": limit, "float32": plain})
    return rows


def _manifest(samples: int, columns: Sequence[Column], shard: int) -> Manifest:
    return Manifest(
        key={"teacher": {}, "seed": 0, "data": {"transforms": [], "ids": "positions"}},
        samples=samples,
        views=1,
        shard_samples=shard,
        columns=(Column("inputs", (), "float32", "exact"), *columns),
        taps=({"tap": ["fc", "output", None, None], "value": {"leaf": 1}},),
    )


# ---------------------------------------------------------------------- reading


def bench_reading(pairs: int, quick: bool, folder: Path) -> list[dict[str, Any]]:
    """Random batches of a bank of a million samples: the first reads, which are checked, and later ones."""
    samples, batch = (4000, 64) if quick else (1_000_000, 256)
    rows = []
    for encoding in ("float16", "top16"):
        place = folder / f"reading {encoding}"
        made = create(place, _manifest(samples, [Column("fc", (CLASSES,), "float32", encoding)], -(-samples // 64)))
        _fill(place, made)
        order = np.random.RandomState(0).permutation(samples)
        views = np.zeros(batch, dtype=np.int64)
        bank = Bank(place)
        speeds = []
        for passes in range(3):
            start, done = time.perf_counter(), 0
            while done + batch <= samples and time.perf_counter() - start < (0.2 if quick else 6):
                positions = order[done : done + batch]
                bank.read(0, positions, views)
                bank.read(1, positions, views)
                done += batch
            speeds.append(done / (time.perf_counter() - start))
            if not passes and done + batch <= samples:
                for shard in range(made.shards):  # the rest of the checksums, so that later passes are alike
                    bank.shard(shard).check_all()
        each = made.size / samples
        print(
            f"{samples} samples, {encoding}, {size_text(made.size)}: {speeds[0]:,.0f} samples/s with checksums, "
            f"{max(speeds[1:]):,.0f} samples/s afterwards ({size_text(max(speeds[1:]) * each)}/s), batches of {batch}"
        )
        rows.append({"group": "reading", "name": encoding, "first": speeds[0], "later": max(speeds[1:]), "bytes": each})
        shutil.rmtree(place)
    return rows


def _fill(folder: Path, made: Manifest) -> None:
    generator = torch.Generator().manual_seed(0)
    for shard in range(made.shards):
        rows = made.rows(shard)
        with ShardWriter(folder, made, shard) as writer:
            for start in range(0, rows, 4096):
                count = min(4096, rows - start)
                writer.append([torch.zeros(count), 3 * torch.randn(count, CLASSES, generator=generator)])


# ---------------------------------------------------------------------- command


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for.

    Args:
        arguments: Words after the program's name; those of the process by default.

    Returns:
        0 if every bar was met, or with ``--quick``, which judges nothing; 1 otherwise.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PART,...", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--pairs", metavar="N", type=int, default=30, help="pairs of a ratio (default: 30)")
    parser.add_argument("--quick", action="store_true", help="tiny inputs: that it runs")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the numbers here")
    options = parser.parse_args(arguments)
    asked = options.only.split(",")
    if set(asked) - set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}, got {options.only}")
    torch.set_num_threads(1)
    keep_freed_memory()
    benches = {"step": bench_step, "forward": bench_forward, "bytes": bench_bytes, "reading": bench_reading}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in asked:
            rows += benches[name](QUICK_PAIRS if options.quick else options.pairs, options.quick, Path(folder))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    missed = [row["name"] for row in rows if "bar" in row and row["low"] < row["bar"]] if not options.quick else []
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
