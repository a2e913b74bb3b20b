"""``hatch run quickstart-pointcloud``: PointPillars with and without PointDistiller on simulated lidar frames.

The package simulates the frames, the configs ``detection/lidar/*`` train, and the page shows average precision and
scenes from above; nothing here but the order of the runs and the page.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.engine.commands import train
from limbeck_core.engine.quickstart import command, text_table
from limbeck_core.report import Report, spread
from limbeck_detection.data import KittiFrames
from limbeck_detection.evaluation import draw_scenes
from limbeck_detection.lidar import Lidar, simulate

TEACHER, PLAIN, DISTILLED, SHUFFLED = "teacher", "plain student (4x)", "PointDistiller", "shuffled (control)"
CONFIGS = {
    TEACHER: "detection/lidar/teacher",
    PLAIN: "detection/lidar/plain",
    DISTILLED: "detection/lidar/distilled",
    SHUFFLED: "detection/lidar/shuffled",
}
CLASSES = ("Pedestrian", "Cyclist", "Car")
KEYS = {name: f"{name}/bev/AP40/moderate" for name in (*CLASSES, "mean")} | {"mean 3D": "mean/3d/AP40/moderate"}
_COLUMNS = ("model", *KEYS, "parameters", "training (s)")
_SHOWN = 4  # frames in the picture


@dataclass
class Trained:
    """What was measured of one kind of training over its seeds."""

    results: list[dict[str, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    student: nn.Module | None = None  # of the first seed

    def over_seeds(self, name: str) -> list[float]:
        """One number a seed."""
        return [result[name] for result in self.results]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    return command(
        "quickstart-pointcloud",
        "PointPillars with and without PointDistiller on simulated lidar frames.",
        run,
        arguments,
    )


def run(options: argparse.Namespace) -> Path:
    """Simulate, train, judge, print the table and write the report.

    Args:
        options: ``out``, ``seeds`` and ``smoke``.

    Returns:
        The path of the page.
    """
    started = time.perf_counter()
    out: Path = options.out
    data = make_frames(out / "frames", smoke=options.smoke)
    found: dict[str, Trained] = {}
    for kind in CONFIGS:
        found[kind] = Trained()
        for seed in range(1 if kind == TEACHER else options.seeds):
            train_one(found[kind], kind, data, out, seed, smoke=options.smoke)
            print(f"  {kind}, seed {seed}: {found[kind].results[-1]['mean']:.1f} mean AP from above", flush=True)
    return _report(found, data, out, options.seeds, time.perf_counter() - started)


def make_frames(folder: Path, *, smoke: bool = False) -> Path:
    """Simulate the frames of the quickstart: the 90 degrees before the sensor, objects within 30 m."""
    train_frames, val = (4, 4) if smoke else (160, 60)
    return simulate(
        folder, train=train_frames, val=val, seed=0, lidar=Lidar(64, 512, azimuth=(-45.0, 45.0)), reach=30.0
    )


def train_one(result: Trained, kind: str, data: Path, out: Path, seed: int, *, smoke: bool = False) -> None:
    """Train one model and add what it reaches.

    Args:
        result: Receives numbers and, of the first seed, the model.
        kind: One of the arms.
        data: The frames.
        out: Folder of the runs; the teacher is there already.
        seed: Of the run.
        smoke: A few steps only.
    """
    overrides: dict[str, Any] = {"+log_level": "ERROR"}  # the table says what matters
    if smoke:
        overrides |= {"train_cfg.max_steps": 2, "train_cfg.val_interval": 2, "train_dataloader.batch_size": 2}
    if kind in (DISTILLED, SHUFFLED):
        overrides["model.teacher.checkpoint"] = str(out / folder_of(TEACHER, 0) / "student.pth")
    begun = time.perf_counter()
    runner = train(CONFIGS[kind], work_dir=out / folder_of(kind, seed), seed=seed, data_root=data, overrides=overrides)
    result.seconds.append(time.perf_counter() - begun)
    scalars = runner.message_hub.log_scalars
    result.results.append({name: float(scalars[f"val/{key}"].data[0][-1]) for name, key in KEYS.items()})
    result.student = result.student or runner.model.student


def folder_of(kind: str, seed: int) -> str:
    """Name of a run's folder."""
    return f"{CONFIGS[kind].rpartition('/')[2]}-{seed}"


def rows_of(found: Mapping[str, Trained]) -> list[list[str]]:
    """Rows of the table."""
    return [
        [
            kind,
            *(spread(result.over_seeds(name)) for name in KEYS),
            f"{sum(p.numel() for p in result.student.parameters()) if result.student else 0:,}",
            f"{statistics.fmean(result.seconds):.0f}",
        ]
        for kind, result in found.items()
    ]


def verdict(found: Mapping[str, Trained]) -> str:
    """What the means over seeds say, in a sentence that promises no more than they do."""
    means = {kind: statistics.fmean(result.over_seeds("mean")) for kind, result in found.items()}
    gaps = {kind: means[DISTILLED] - means[kind] for kind in (PLAIN, SHUFFLED)}
    pairs = {
        kind: [a - b for a, b in zip(found[DISTILLED].over_seeds("mean"), found[kind].over_seeds("mean"), strict=True)]
        for kind in gaps
    }
    parts = [
        f"{gap:+.1f} points against {kind} (better in {sum(p > 0 for p in pairs[kind])} of {len(pairs[kind])} seeds)"
        for kind, gap in gaps.items()
    ]
    return f"PointDistiller in mean AP from above: {' and '.join(parts)}"


def _report(found: Mapping[str, Trained], data: Path, out: Path, seeds: int, seconds: float) -> Path:
    rows = rows_of(found)
    print(f"\n{text_table(_COLUMNS, rows)}")
    lead = verdict(found)
    print(f"\n{lead}.")
    page = Report(
        "PointDistiller on simulated lidar frames", f"{lead}. Three seeds tell apart large differences alone."
    )
    page.heading("Numbers").table(
        _COLUMNS,
        rows,
        caption="KITTI's AP40 at moderate difficulty from above (classes and mean) and in space (mean 3D), with the "
        f"loose overlaps 0.5 (cars) and 0.25, on simulated validation frames; mean ± standard deviation of {seeds} "
        "seed(s), one teacher, last step.",
    )
    page.text(
        "Students have half the teacher's channels. PointDistiller's student also follows the teacher's codes of "
        "neighbourhoods around the fullest pillars. In the control the neighbours of all centres change places at "
        "random, which leaves features and weights and destroys local structure. All arms have one learning rate, "
        "which was not tuned, one number of steps and the same seeds."
    )
    frames = KittiFrames(data, split="val", classes=CLASSES)
    scenes = [frames[number] for number in range(min(_SHOWN, len(frames)))]
    points = [scene["inputs"] for scene in scenes]
    rows_shown: dict[str, Sequence[Mapping[str, Tensor]]] = {
        kind: _predict(result.student, points) for kind, result in found.items() if result.student is not None
    }
    path = draw_scenes(
        points,
        rows_shown,
        out / "pictures" / "scenes.png",
        classes=CLASSES,
        truth=[scene["targets"] for scene in scenes],
        extent=(0.0, -15.36, 30.72, 15.36),
    )
    page.heading("Scenes from above").figure(
        "scenes",
        path,
        alt="Lidar points from above with true boxes and those that each model finds",
        caption="Seed 0; detections with a score of 0.3 and more, true boxes dashed.",
    )
    page.heading("Again").code(
        "hatch run quickstart-pointcloud\n"
        f"python -m limbeck_detection.lidar {data} --train 160 --val 60 --columns 512 --front --reach 30\n"
        + "\n".join(f"limbeck train {config} --data-root {data} --seed 0" for config in CONFIGS.values())
    )
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    page.text(f"Run on {datetime.now(timezone.utc):%Y-%m-%d}, {machine}, {seconds:.0f} s in all.")
    return page.write(out)


@torch.no_grad()
def _predict(student: nn.Module, points: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    found: list[dict[str, Tensor]] = student.eval().predict(points)  # type: ignore[operator]
    return found


if __name__ == "__main__":
    sys.exit(main())
