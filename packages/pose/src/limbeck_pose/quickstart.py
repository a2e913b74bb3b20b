"""``hatch run quickstart-pose``: a small model with and without DWPose on jointed figures that are drawn here.

The configs ``pose/figures/*`` and the same functions as ``limbeck train``. Nothing here but the order of the runs and
the page that shows them.
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

import numpy as np
import torch

from limbeck_core.engine.commands import train
from limbeck_core.engine.quickstart import command, text_table
from limbeck_core.report import Report, paired_bootstrap, spread
from limbeck_pose.data import People
from limbeck_pose.evaluation import draw_people, write_picture
from limbeck_pose.figures import SIZE, FigurePose
from limbeck_pose.rendered import CHAIN, render
from limbeck_pose.simcc import SimCC

TEACHER, PLAIN, MASKED, STAGE1, STAGE2 = (
    "teacher",
    "labels only",
    "masked (control)",
    "DWPose stage 1",
    "DWPose stage 2",
)
CONFIGS = {
    TEACHER: "pose/figures/teacher",
    PLAIN: "pose/figures/plain",
    MASKED: "pose/figures/masked",
    STAGE1: "pose/figures/stage1",
    STAGE2: "pose/figures/stage2",
}
FIGURES, SMOKE_FIGURES = 1024, 64
_MEASURES = ("pck", "pck/never_labelled", "pck/sometimes")
_COLUMNS = ("model", "PCK (%)", "never labelled (%)", "sometimes labelled (%)", "parameters", "training (s)")


@dataclass
class Trained:
    """What was measured of one kind of training over its seeds."""

    measures: list[Mapping[str, float]] = field(default_factory=list)
    people: list[list[float]] = field(default_factory=list)  # share of each test figure, by seed
    seconds: list[float] = field(default_factory=list)
    student: FigurePose | None = None  # of the first seed

    def over_seeds(self, measure: str) -> list[float]:
        """One number a seed."""
        return [measures[measure] for measures in self.measures]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    return command("quickstart-pose", (__doc__ or "").partition("\n")[0], run, arguments)


def run(options: argparse.Namespace) -> Path:
    """Draw the figures, train, measure, print the table and write the report.

    Args:
        options: ``out``, ``seeds`` and ``smoke``.

    Returns:
        The path of the page.
    """
    started = time.perf_counter()
    out: Path = options.out
    count = SMOKE_FIGURES if options.smoke else FIGURES
    data = render(out / "figures", train=count, val=count // 4, seed=0)
    found: dict[str, Trained] = {}
    for kind in CONFIGS:
        found[kind] = Trained()
        for seed in range(1 if kind == TEACHER else options.seeds):
            _train(found[kind], kind, data, out, seed, epochs=1 if options.smoke else None)
            share, seconds = found[kind].over_seeds("pck")[-1], found[kind].seconds[-1]
            print(f"  {kind}, seed {seed}: {share:.2f} % in {seconds:.0f} s", flush=True)
    return _report(found, data, out, options.seeds, time.perf_counter() - started)


def _train(result: Trained, kind: str, data: Path, out: Path, seed: int, *, epochs: int | None) -> None:
    overrides: dict[str, Any] = {
        "+log_level": "ERROR",  # the table says what matters
        "+default_hooks": {"checkpoint": {"every_epochs": None}, "logger": {"interval": 10}},
    }
    if epochs is not None:
        overrides |= {"train_cfg.max_epochs": epochs, "train_cfg.val_interval": 1, "param_scheduler.T_max": epochs}
    first = {STAGE1: _folder(TEACHER, 0), MASKED: _folder(TEACHER, 0), STAGE2: _folder(STAGE1, seed)}
    if kind in first:
        overrides["model.teacher.checkpoint"] = str(out / first[kind] / "student.pth")
    begun = time.perf_counter()
    runner = train(CONFIGS[kind], work_dir=out / _folder(kind, seed), seed=seed, data_root=data, overrides=overrides)
    result.seconds.append(time.perf_counter() - begun)
    scalars = runner.message_hub.log_scalars
    result.measures.append({name: float(scalars[f"val/{name}"].data[0][-1]) for name in _MEASURES})
    result.people.append(list(runner.val_evaluator.metrics[0].per_sample["pck"]))
    result.student = result.student or runner.model.student


def _folder(kind: str, seed: int) -> str:
    return f"{CONFIGS[kind].rpartition('/')[2]}-{seed}"


def _report(found: Mapping[str, Trained], data: Path, out: Path, seeds: int, seconds: float) -> Path:
    rows = [
        [
            kind,
            *(spread(result.over_seeds(measure)) for measure in _MEASURES),
            f"{sum(p.numel() for p in result.student.parameters()) if result.student else 0:,}",
            f"{statistics.fmean(result.seconds):.0f}",
        ]
        for kind, result in found.items()
    ]
    print(f"\n{text_table(_COLUMNS, rows)}")
    verdicts = {
        f"{STAGE1} against {other}": paired_bootstrap(found[other].people, found[STAGE1].people).sentence()
        for other in (PLAIN, MASKED)
    }
    lead = "; ".join(f"{pair}: {verdict} of key points" for pair, verdict in verdicts.items())
    print(f"\n{lead}")
    page = Report("DWPose on drawn figures", f"{lead}.")
    page.heading("Numbers").table(
        _COLUMNS,
        rows,
        caption="Key points within 4 pixels of the truth, of the figures of val.json with every key point labelled; "
        f"mean ± standard deviation of {seeds} seed(s), one teacher, last epoch.",
    )
    page.text(
        "The student's training file lacks three of the ten key points altogether and most labels of the others; the "
        "teacher was trained on the full file. DWPose lets the teacher speak of key points without a label. The "
        "control lets it speak of labelled ones alone and must not learn the three. The second stage draws a new head "
        "on the frozen backbone and trains it without labels, so it is expected near the first stage, not far above it."
    )
    page.heading("Figures")
    for kind in (PLAIN, STAGE1):
        picture = out / f"{_folder(kind, 0)}_figures.png"
        _picture(found[kind], data, picture)
        page.figure(
            f"{_folder(kind, 0)}_figures",
            picture,
            alt=f"Eight figures with the skeletons that {kind} finds",
            caption=f"{kind}, seed 0, the first eight figures of val.json.",
        )
    page.heading("Again").code(
        f"hatch run quickstart-pose\npython -m limbeck_pose.rendered {data}\n"
        + "\n".join(f"limbeck train {config} --data-root {data} --seed 0" for config in CONFIGS.values())
    )
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    page.text(f"Run on {datetime.now(timezone.utc):%Y-%m-%d}, {machine}, {seconds:.0f} s in all.")
    return page.write(out)


@torch.no_grad()
def _picture(result: Trained, data: Path, path: Path, *, count: int = 8, zoom: int = 3) -> None:
    """Draw what the first model of a kind finds, with the figures side by side and enlarged."""
    if result.student is None:
        return
    codec = SimCC(SIZE, sigma=(3.0, 3.0))
    people = People("val.json", images="val", root=data, codec=codec, layout=CHAIN)
    items = [people[number] for number in range(min(count, len(people)))]
    images = torch.stack([item["inputs"] for item in items])
    points, scores = codec.decode(*result.student.eval()(images))
    tiles = []
    for image, pixels, score in zip(images, points, scores, strict=True):
        tile = np.kron(image.permute(1, 2, 0).numpy(), np.ones((zoom, zoom, 1), np.uint8))
        shown = (pixels.double().numpy() * zoom, score.double().numpy())
        tiles.append(draw_people(tile, [shown], CHAIN, least_score=0.0))
    rows = [np.hstack(tiles[start : start + 4]) for start in range(0, len(tiles) - len(tiles) % 4 or len(tiles), 4)]
    write_picture(np.vstack(rows), path)


if __name__ == "__main__":
    sys.exit(main())
