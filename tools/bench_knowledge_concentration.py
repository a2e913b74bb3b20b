"""Measure structurally connected last layers against dense ones: peak memory and time of a training step.

On a CPU, under Linux::

    python tools/bench_knowledge_concentration.py
    python tools/bench_knowledge_concentration.py --labels 20000 --verticals 40 --pairs 10

Three forms of one head, each with the loss on the K probabilities of a specialist: ``structured`` (FC-SC), ``masked``
(the same function as a dense layer from all M * s2 units, most of whose weights are zero), and ``dense`` (FC-FC, the
paper's smaller model). Memory is the growth of the process's peak resident size over what stands before the head is
made, so it holds weights, gradients and activations; each form runs in a process of its own. Time is compared in
interleaved pairs in one process; printed are the median of the pairs' ratios and its 95 % bootstrap interval. The last
lines are arithmetic: what the same layers hold at 100,000 labels.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from limbeck_vision.methods.knowledge_concentration import ConcentrationHead, head_weights, specialist_loss

KIB, MIB = 1024, 2**20
FORMS = ("structured", "masked", "dense")


class Masked(nn.Module):
    """FC-SC with its classifier as one dense layer over all verticals' units."""

    def __init__(self, head: ConcentrationHead) -> None:
        super().__init__()
        self.first, self.second = head.first, head.second
        self.classifier = head.classifier.as_dense()  # type: ignore[operator]

    def forward(self, embeddings: Tensor) -> Tensor:
        """Score embeddings."""
        logits: Tensor = self.classifier(relu(self.second(relu(self.first(embeddings)))))
        return logits


def sizes_of(labels: int, verticals: int) -> list[int]:
    """Verticals of nearly one size."""
    return [labels // verticals + (vertical < labels % verticals) for vertical in range(verticals)]


def step_of(options: argparse.Namespace, form: str) -> Callable[[], None]:
    """Return one training step, forward and backward, of a form."""
    torch.manual_seed(0)
    structured = ConcentrationHead(
        options.width,
        sizes_of(options.labels, options.verticals),
        first_width=options.first,
        second_width=options.second,
        second="full" if form == "dense" else "structured",
    )
    head: nn.Module = Masked(structured) if form == "masked" else structured
    embeddings = torch.randn(options.batch, options.width)
    kept = torch.rand(options.batch, options.top_k)
    labels = torch.randint(options.labels, (options.batch, options.top_k))

    def step() -> None:
        head.zero_grad(set_to_none=True)
        specialist_loss(head(embeddings), kept, labels).backward()

    return step


def peak_growth(options: argparse.Namespace, form: str) -> int:
    """Return by how many bytes head and one step raise the peak resident size of a fresh process."""
    command = [sys.executable, __file__, "--measure-peak-of", form]
    for name in ("labels", "verticals", "width", "first", "second", "batch", "top-k", "threads"):
        command += [f"--{name}", str(getattr(options, name.replace("-", "_")))]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def own_peak_growth(options: argparse.Namespace, form: str) -> int:
    """Return the growth in this process; a small step first, so that libraries are loaded and threads started."""
    small = argparse.Namespace(**{**vars(options), "labels": 40, "width": 4, "first": 4, "second": 4, "top_k": 2})
    step_of(small, form)()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before = memory_of_process("VmRSS")
    step_of(options, form)()
    return memory_of_process("VmHWM") - before


def memory_of_process(field: str) -> int:
    """Return a size from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * KIB


def ratio_of_times(
    first: Callable[[], None], second: Callable[[], None], pairs: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of the first, and the ratios second over first, pair by pair; the order alternates."""
    seconds: dict[int, list[float]] = {0: [], 1: []}
    steps = (first, second)
    for step in steps:
        step()
    for pair in range(pairs):
        for index in (0, 1) if pair % 2 else (1, 0):
            start = time.perf_counter()
            steps[index]()
            seconds[index].append(time.perf_counter() - start)
    return seconds[0], [b / a for a, b in zip(seconds[0], seconds[1], strict=True)]


def bootstrap_of_median(values: list[float], draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % interval of the median."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws)]


def arithmetic(options: argparse.Namespace, labels: int) -> str:
    """Weights and bytes of each form at a number of labels; nothing is allocated."""
    sizes = sizes_of(labels, options.verticals)
    shape = {"first_width": options.first, "second_width": options.second}
    structured = head_weights(options.width, sizes, **shape)
    dense = head_weights(options.width, sizes, **shape, second="full")
    masked = structured + options.second * labels * (options.verticals - 1)
    rows = {"structured": structured, "masked": masked, "dense": dense}
    parts = [f"{name} {count / 1e6:.1f} M weights, {count * 16 / MIB:.0f} MiB" for name, count in rows.items()]
    return f"  {labels:,} labels: " + "; ".join(parts)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=10_000)
    parser.add_argument("--verticals", type=int, default=20)
    parser.add_argument("--width", type=int, default=1024, help="of the embeddings")
    parser.add_argument("--first", type=int, default=1024, help="units of the first layer")
    parser.add_argument("--second", type=int, default=128, help="units that a label reads")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure-peak-of", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure_peak_of:
        print(own_peak_growth(options, options.measure_peak_of))
        return
    print(
        f"{options.labels:,} labels in {options.verticals} verticals, {options.width} -> {options.first} -> "
        f"{options.second}, batch {options.batch}, K {options.top_k}, float32, {options.threads} thread(s), torch "
        f"{torch.__version__}"
    )
    peaks = {form: peak_growth(options, form) for form in FORMS}
    for form in FORMS:
        print(
            f"  {form}: peak memory {peaks[form] / MIB:.0f} MiB, {peaks[form] / peaks['structured']:.2f} of structured"
        )
    if options.pairs:
        structured = step_of(options, "structured")
        for form in ("masked", "dense"):
            seconds, ratios = ratio_of_times(structured, step_of(options, form), options.pairs)
            low, high = bootstrap_of_median(ratios)
            print(
                f"  step: {form} takes {statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}] of structured's "
                f"{statistics.median(seconds) * 1000:.0f} ms, {options.pairs} pairs"
            )
    print("by arithmetic, weights with gradient and Adam's two moments (16 bytes each):")
    for labels in (options.labels, 100_000):
        print(arithmetic(options, labels))


if __name__ == "__main__":
    main()
