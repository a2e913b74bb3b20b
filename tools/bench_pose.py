"""Measure pose: DWPose's losses against their plain formulas, the codecs against loops, and judging 5,000 images.

    python tools/bench_pose.py                    # about two minutes on one core
    python tools/bench_pose.py --quick            # the same on tiny inputs, in seconds: that it runs
    python tools/bench_pose.py --json pose.json

Ratios are limbeck's time over that of the plain code below, which does what the reference does: key point by key point
for the losses (forward and backward, 64 people, 133 points, 384 and 512 bins), person by person and point by point for
the codec. Measured as in ``bench_core.py``: one process, one thread, interleaved pairs, processor time, the median with
its 95 % bootstrap interval; the losses' bar is 0.5. Judging is in seconds: average precision, and PCK with NME, of
5,000 images with one person each.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_core import Ratio, interleaved, keep_freed_memory, summary
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, softmax

from limbeck_pose.dwpose import SimCCTaskLoss, simcc_divergence_loss
from limbeck_pose.evaluation import average_precision, nearness
from limbeck_pose.keypoints import WHOLE_BODY
from limbeck_pose.simcc import SimCC

BAR = 0.5  # of the plain formulas' time
SHARPNESS = 10.0
QUICK_PAIRS = 2


def plain_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum over bins, mean over the batch, as the reference's KDLoss."""
    rows = student.flatten(0, 1), teacher.flatten(0, 1)
    terms = kl_div(log_softmax(rows[0] * SHARPNESS, 1), softmax(rows[1] * SHARPNESS, 1), reduction="none").sum(1)
    return terms.view(student.shape[:2]).sum(1).mean() / student.shape[1]


def plain_task(scores: Sequence[Tensor], labels: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Mean over bins, sum over the batch, as the reference's KLDiscretLoss."""
    total = weight.new_zeros(())
    for score, label in zip(scores, labels, strict=True):
        rows = score.flatten(0, 1), label.flatten(0, 1)
        terms = kl_div(log_softmax(rows[0] * SHARPNESS, 1), softmax(rows[1] * SHARPNESS, 1), reduction="none").mean(1)
        total = total + (terms * weight.flatten()).sum()
    return total / weight.shape[1]


def loop_encode(points: Tensor, visible: Tensor, codec: SimCC) -> list[np.ndarray[Any, Any]]:
    """Labels one key point after the other."""
    labels = [np.zeros((*points.shape[:2], bins), np.float32) for bins in codec.bins]
    grids = [np.arange(bins, dtype=np.float32) for bins in codec.bins]
    for person, point in np.ndindex(*points.shape[:2]):
        if visible[person, point] < 0.5:
            continue
        centre = np.round(points[person, point].numpy() * codec.bins_per_pixel)
        for axis, sigma in enumerate(codec.sigmas):
            labels[axis][person, point] = np.exp(-((grids[axis] - centre[axis]) ** 2) / (2 * sigma**2))
    return labels


def loop_decode(x: Tensor, y: Tensor, codec: SimCC) -> np.ndarray[Any, Any]:
    """Maxima one key point after the other."""
    found = np.zeros((*x.shape[:2], 2), np.float32)
    rows, columns = x.numpy(), y.numpy()
    for person, point in np.ndindex(*x.shape[:2]):
        found[person, point] = rows[person, point].argmax(), columns[person, point].argmax()
    return found / codec.bins_per_pixel


def step(loss: Callable[[], Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """Forward and backward."""
    for tensor in inputs:
        tensor.grad = None
    value = loss()
    value.backward()
    return value.detach()


def compare(group: str, name: str, ours: Callable[[], Any], plain: Callable[[], Any], pairs: int) -> Ratio:
    """Hold both to the same value, then to the clock."""
    torch.testing.assert_close(torch.as_tensor(ours()), torch.as_tensor(plain()), rtol=1e-4, atol=1e-5)
    return summary(group, name, interleaved(ours, plain, pairs, 0.0))


def bench(pairs: int, quick: bool) -> list[Ratio]:
    """All ratios."""
    people, points = (4, 5) if quick else (64, 133)
    codec = SimCC((64, 48) if quick else (256, 192))
    generator = torch.Generator().manual_seed(0)

    def scores() -> list[Tensor]:
        return [torch.randn(people, points, bins, generator=generator) for bins in codec.bins]

    student, teacher = scores(), scores()
    for tensor in student:
        tensor.requires_grad_()
    keypoints = torch.rand(people, points, 2, generator=generator) * 45
    visible = (torch.rand(people, points, generator=generator) < 0.7).float()
    targets = codec.encode(keypoints, visible)
    labels, task = [targets.x, targets.y], SimCCTaskLoss(reduction="sum")
    shape = f"{people} people, {points} points, {codec.bins[0]} and {codec.bins[1]} bins"
    return [
        compare(
            "loss",
            f"SimCCDivergenceLoss, both axes ({shape})",
            lambda: step(lambda: sum(map(simcc_divergence_loss, student, teacher), torch.zeros(())), student),
            lambda: step(lambda: sum(map(plain_divergence, student, teacher), torch.zeros(())), student),
            pairs,
        ),
        compare(
            "loss",
            f"SimCCTaskLoss ({shape})",
            lambda: step(lambda: task(student, [*labels, targets.weight]), student),
            lambda: step(lambda: plain_task(student, labels, targets.weight), student),
            pairs,
        ),
        compare(
            "codec",
            f"SimCC.encode ({shape})",
            lambda: codec.encode(keypoints, visible).y,
            lambda: loop_encode(keypoints, visible, codec)[1],
            pairs,
        ),
        compare(
            "codec",
            f"SimCC.decode ({shape})",
            lambda: codec.decode(*(t.detach() for t in student))[0].clamp(min=0),
            lambda: loop_decode(*(t.detach() for t in student), codec),
            pairs,
        ),
    ]


def bench_judging(quick: bool) -> dict[str, float]:
    """Seconds to judge whole bodies, one an image."""
    count, random = (20 if quick else 5000), np.random.default_rng(0)
    images, annotations, results = [], [], []
    for number in range(count):
        points = random.uniform(0, 200, (WHOLE_BODY.count, 2))
        found = np.column_stack([points + random.normal(0, 2, points.shape), np.ones(len(points))])
        labelled = np.column_stack([points, np.where(random.random(len(points)) < 0.8, 2, 0)])
        person = {"image_id": number, "category_id": 1}
        images.append({"id": number, "width": 200, "height": 200})
        annotations.append(
            {**person, "id": number + 1, "iscrowd": 0, "bbox": [0, 0, 200, 200], "area": 2e4,
             "keypoints": labelled.ravel().tolist()}
        )  # fmt: skip
        results.append({**person, "score": float(random.random()), "keypoints": found.ravel().tolist()})
    truth = {"images": images, "annotations": annotations}
    seconds = {}
    for name, judge in (("AP and AR of seven parts", average_precision), ("PCK and NME", nearness)):
        begun = time.perf_counter()
        judge(truth, results)
        seconds[f"{name}, {count} images x {WHOLE_BODY.count} points"] = time.perf_counter() - begun
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny inputs: that it runs")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of runs of each (default: 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    keep_freed_memory()
    ratios = bench(QUICK_PAIRS if options.quick else options.pairs, options.quick)
    for row in ratios:
        bar = "" if row.group != "loss" or options.quick else f"  bar {BAR}: {'met' if row.low < BAR else 'missed'}"
        print(f"{row.name:<80} {row.ratio:.3f} ({row.low:.3f} to {row.high:.3f}){bar}")
    seconds = bench_judging(options.quick)
    for name, value in seconds.items():
        print(f"{name:<80} {value:.1f} s")
    if options.json:
        content = {"machine": platform.machine(), "torch": torch.__version__, "ratios": [asdict(r) for r in ratios],
                   "seconds": seconds}  # fmt: skip
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
