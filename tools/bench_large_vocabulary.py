"""Measure linear_jsd_loss against the same loss on whole logits: peak memory and time of forward plus backward.

On a CPU, under Linux::

    python tools/bench_large_vocabulary.py
    python tools/bench_large_vocabulary.py --tokens 1024 --vocabulary 128000 --beta 0 --pairs 10
    python tools/bench_large_vocabulary.py --chunk-sizes 64 128 256 --pairs 5

Memory is the growth of the process's peak resident size over what stands after the inputs are made, each form in a
process of its own. Time is compared in interleaved pairs in one process; printed are the median of the pairs' ratios
and its 95 % bootstrap interval. On a machine that others use too, only the ratios mean something.
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
from torch.nn.functional import linear

from limbeck_core.functional import generalized_jsd_loss, linear_jsd_loss

KIB = 1024


def steps(options: argparse.Namespace, chunk_size: int | None) -> dict[str, Callable[[], None]]:
    """Return one training step of the loss in each form, by name."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).mul_(scale)

    student_hidden = normal(options.tokens, options.student_width).requires_grad_()
    teacher_hidden = normal(options.tokens, options.teacher_width)
    student_weight = normal(options.vocabulary, options.student_width, scale=2 / options.student_width**0.5)
    teacher_weight = normal(options.vocabulary, options.teacher_width, scale=2 / options.teacher_width**0.5)
    student_weight.requires_grad_(not options.frozen_weight)

    def whole() -> None:
        student_hidden.grad = student_weight.grad = None
        with torch.no_grad():
            teacher_logits = linear(teacher_hidden, teacher_weight)
        generalized_jsd_loss(linear(student_hidden, student_weight), teacher_logits, beta=options.beta).backward()

    def chunked() -> None:
        student_hidden.grad = student_weight.grad = None
        linear_jsd_loss(
            student_hidden,
            teacher_hidden,
            student_weight,
            teacher_weight,
            beta=options.beta,
            chunk_size=chunk_size,
        ).backward()

    return {"whole": whole, "chunked": chunked}


def peak_growth(options: argparse.Namespace, form: str, chunk_size: int | None) -> int:
    """Return by how many bytes one step raises the peak resident size of a fresh process."""
    command = [sys.executable, __file__, "--measure-peak-of", form, "--beta", str(options.beta)]
    for name in ("tokens", "vocabulary", "student-width", "teacher-width", "threads"):
        command += [f"--{name}", str(getattr(options, name.replace("-", "_")))]
    command += ["--frozen-weight"] * options.frozen_weight
    command += ["--chunk-sizes", str(chunk_size)] if chunk_size is not None else []
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def own_peak_growth(step: Callable[[], None]) -> int:
    """Return the growth in this process; a small step first, so that libraries are loaded and threads started."""
    small = argparse.Namespace(tokens=8, vocabulary=16, student_width=4, teacher_width=4, beta=0.5, frozen_weight=False)
    for warm_up in steps(small, None).values():
        warm_up()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before = memory_of_process("VmRSS")
    step()
    return memory_of_process("VmHWM") - before


def memory_of_process(field: str) -> int:
    """Return a size from the kernel's account of this process; getrusage would report the parent's peak as ours."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * KIB


def ratio_of_times(forms: dict[str, Callable[[], None]], pairs: int) -> tuple[list[float], list[float], list[float]]:
    """Return the seconds of each form and their ratio, pair by pair; which comes first alternates."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for step in forms.values():
        step()
    for pair in range(pairs):
        for name in sorted(forms, reverse=bool(pair % 2)):
            start = time.perf_counter()
            forms[name]()
            seconds[name].append(time.perf_counter() - start)
    ratios = [c / w for c, w in zip(seconds["chunked"], seconds["whole"], strict=True)]
    return seconds["whole"], seconds["chunked"], ratios


def bootstrap_of_median(values: list[float], draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % interval of the median."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws)]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--student-width", type=int, default=512)
    parser.add_argument("--teacher-width", type=int, default=1024)
    parser.add_argument("--beta", type=float, default=0.5, help="0 forward, 1 reverse, between: mixture")
    parser.add_argument("--frozen-weight", action="store_true", help="the student's weight needs no gradient")
    parser.add_argument("--chunk-sizes", type=int, nargs="*", default=[], help="default: the loss's own choice")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--measure-peak-of", choices=("whole", "chunked"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chunk_sizes: list[int | None] = [*options.chunk_sizes] or [None]
    if options.measure_peak_of:
        print(own_peak_growth(steps(options, chunk_sizes[0])[options.measure_peak_of]))
        return
    print(
        f"{options.tokens} tokens, {options.vocabulary} ids, widths {options.student_width} and "
        f"{options.teacher_width}, beta {options.beta:g}, float32, {options.threads} threads, torch {torch.__version__}"
    )
    whole_peak = peak_growth(options, "whole", None)
    for chunk_size in chunk_sizes:
        label = "default chunk" if chunk_size is None else f"chunk {chunk_size}"
        peak = peak_growth(options, "chunked", chunk_size)
        print(
            f"  {label}: peak memory {peak / 2**20:.0f} MiB against {whole_peak / 2**20:.0f} MiB, "
            f"1/{whole_peak / peak:.1f} of it"
        )
        if options.pairs:
            whole, chunked, ratios = ratio_of_times(steps(options, chunk_size), options.pairs)
            low, high = bootstrap_of_median(ratios)
            print(
                f"  {label}: time {statistics.median(chunked):.2f} s against {statistics.median(whole):.2f} s, ratio "
                f"{statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}], {options.pairs} pairs"
            )


if __name__ == "__main__":
    main()
