"""Measure DISCOVR's losses: Sinkhorn and cluster distillation against the released code's steps, and peak memory.

    python tools/bench_discovr.py                    # about two minutes on one core, under Linux
    python tools/bench_discovr.py --quick            # the same on tiny inputs, in seconds: that it runs
    python tools/bench_discovr.py --json discovr.json

Ratios are limbeck's time over that of the plain code below, which does what the reference does, forward and (for
cluster distillation) backward. Measured as in ``bench_core.py``: one process, one thread, interleaved pairs, processor
time, the median with its 95 % bootstrap interval; the bar is 0.5. The reference computes both directions of cluster
distillation though one of them has no gradient; limbeck computes that one only when asked (``symmetric=True``, a row of
its own). Memory is the growth of a fresh process's peak resident size over what stands after the inputs are made, for
16 clips of 1568 tokens, 768 wide, and 3000 prototypes; the bar is 1 GB, without the inputs.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from bench_core import Ratio, interleaved, keep_freed_memory, summary
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from limbeck_audiovideo.discovr import cluster_distillation_loss
from limbeck_core.functional import sinkhorn_assignment

BAR, MEMORY_BAR = 0.5, 10**9
QUICK_PAIRS = 2
EPSILON, ITERATIONS, TEMPERATURE = 0.05, 10, 0.1


@torch.no_grad()
def plain_sinkhorn(scores: Tensor) -> Tensor:
    """Scale rows and columns of the whole matrix in turn, as the reference does."""
    q = torch.exp(scores / EPSILON).t()
    q /= q.sum()
    prototypes, samples = q.shape
    for _ in range(ITERATIONS):
        q /= q.sum(1, keepdim=True)
        q /= prototypes
        q /= q.sum(0, keepdim=True)
        q /= samples
    return (q * samples).t()


def plain_distillation(student: Tensor, teacher: Tensor, prototypes: Tensor) -> Tensor:
    """Both directions of hard cross-entropy on whole matrices of scores."""
    with torch.no_grad():
        of_teacher = normalize(teacher.flatten(0, 1), dim=1) @ prototypes.T
    of_student = normalize(student.flatten(0, 1), dim=1) @ prototypes.T
    labels = plain_sinkhorn(of_teacher).argmax(1), plain_sinkhorn(of_student.detach()).argmax(1)
    return cross_entropy(of_student / TEMPERATURE, labels[0]) + cross_entropy(of_teacher / TEMPERATURE, labels[1])


def tokens(clips: int, count: int, width: int, prototypes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Student's and teacher's tokens, and prototypes of length 1, with gradients where training has them."""
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(clips, count, width, generator=draw) for _ in range(2))
    centres = normalize(torch.randn(prototypes, width, generator=draw), dim=1)
    return student.requires_grad_(), teacher, centres.requires_grad_()


def step(loss: Callable[[], Tensor], *leaves: Tensor) -> float:
    """Forward and backward."""
    for leaf in leaves:
        leaf.grad = None
    value = loss()
    value.backward()
    return float(value.detach())


def bench(pairs: int, quick: bool) -> list[Ratio]:
    """Ratios of both losses; the two sides are held to one value first."""
    shape = (64, 50) if quick else (512, 3000)
    features = (normalize(torch.randn(n, 64, generator=torch.Generator().manual_seed(n)), dim=1) for n in shape)
    first, second = features
    scores = first @ second.T
    torch.testing.assert_close(
        sinkhorn_assignment(scores, epsilon=EPSILON, iterations=ITERATIONS),
        plain_sinkhorn(scores),
        atol=1e-5,
        rtol=1e-3,
    )
    rows = [
        summary(
            "loss",
            f"sinkhorn_assignment, {shape[0]} x {shape[1]}, {ITERATIONS} iterations",
            interleaved(
                lambda: sinkhorn_assignment(scores, epsilon=EPSILON, iterations=ITERATIONS),
                lambda: plain_sinkhorn(scores),
                pairs,
                0.02,
            ),
        )
    ]
    clips, count, width, prototypes = (2, 16, 8, 10) if quick else (8, 196, 256, 1000)
    student, teacher, centres = tokens(clips, count, width, prototypes)

    def ours(symmetric: bool) -> float:
        loss = lambda: cluster_distillation_loss(student, teacher, centres, symmetric=symmetric)  # noqa: E731
        return step(loss, student, centres)

    def plain() -> float:
        return step(lambda: plain_distillation(student, teacher, centres), student, centres)

    if abs(ours(True) - plain()) > 1e-3 * abs(plain()):
        raise ValueError(f"both sides must compute the same, got {ours(True)} and {plain()}")
    where = f"{clips} x {count} tokens of {width}, {prototypes} prototypes"
    for symmetric, title in ((False, "the direction that trains"), (True, "both directions")):
        ratios = interleaved(lambda symmetric=symmetric: ours(symmetric), plain, pairs, 0.02)  # type: ignore[misc]
        rows.append(summary("loss", f"cluster_distillation_loss, {title}, {where}", ratios))
    return rows


def peak_growth(form: str, quick: bool) -> int:
    """Bytes by which one step raises the peak resident size of a fresh process."""
    command = [sys.executable, __file__, "--measure-peak-of", form, *(["--quick"] if quick else [])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def own_peak_growth(form: str, quick: bool) -> int:
    """The same in this process, after a small step that loads what a step needs."""
    loss = cluster_distillation_loss if form == "limbeck" else plain_distillation
    small = tokens(2, 16, 8, 10)
    step(lambda: loss(*small), small[0], small[2])
    student, teacher, centres = tokens(4, 392, 64, 500) if quick else tokens(16, 1568, 768, 3000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(lambda: loss(student, teacher, centres), student, centres)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny inputs: that it runs")
    parser.add_argument("--pairs", type=int, default=30, help="pairs of runs of each (default: 30)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--measure-peak-of", choices=["limbeck", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.measure_peak_of:
        print(own_peak_growth(options.measure_peak_of, options.quick))
        return 0
    keep_freed_memory()
    ratios = bench(QUICK_PAIRS if options.quick else options.pairs, options.quick)
    for row in ratios:
        bar = "" if options.quick else f"  bar {BAR}: {'met' if row.low < BAR else 'missed'}"
        print(f"{row.name:<105} {row.ratio:.3f} ({row.low:.3f} to {row.high:.3f}){bar}")
    peaks = {form: peak_growth(form, options.quick) for form in ("limbeck", "plain")}
    bar = "" if options.quick else f"  bar 1 GB: {'met' if peaks['limbeck'] < MEMORY_BAR else 'missed'}"
    print(f"peak memory of one step: {peaks['limbeck'] / 1e6:.0f} MB, plain {peaks['plain'] / 1e6:.0f} MB{bar}")
    if options.json:
        content = {"machine": platform.machine(), "torch": torch.__version__, "ratios": [asdict(r) for r in ratios],
                   "peaks": peaks}  # fmt: skip
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
