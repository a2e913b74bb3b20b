"""``hatch run quickstart-video``: DISCOVR on drawn clips, against each of its branches alone and against no training.

The configs ``audiovideo/discovr/rendered*`` and the same functions as ``limbeck train``. Nothing here but the order of
the runs and the page that shows them.
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
from matplotlib.figure import Figure

from limbeck_audiovideo.rendered_video import MOTIONS, SHAPES, draw_clip, render_video
from limbeck_core.engine.commands import train
from limbeck_core.engine.quickstart import command, text_table
from limbeck_core.report import Report, paired_bootstrap, spread

DISCOVR, VIDEO, IMAGE = "DISCOVR", "video branch alone", "image branch alone"
UNTRAINED_VIDEO, UNTRAINED_IMAGE = "untrained video branch", "untrained image branch"
CONFIGS = {
    DISCOVR: "audiovideo/discovr/rendered",
    VIDEO: "audiovideo/discovr/rendered_video_only",
    IMAGE: "audiovideo/discovr/rendered_image_only",
    UNTRAINED_VIDEO: "audiovideo/discovr/rendered",
}
TRAIN, TEST = 512, 256
SMOKE_TRAIN, SMOKE_TEST = 48, 24
_MEASURES = ("motion/knn", "motion/linear", "shape/knn", "shape/linear")
_COLUMNS = ("encoder", "motion, kNN", "motion, linear", "shape, kNN", "shape, linear", "training (s)")


@dataclass
class Trained:
    """What was measured of one kind of training over its seeds."""

    measures: list[Mapping[str, float]] = field(default_factory=list)
    clips: list[Mapping[str, list[float]]] = field(default_factory=list)  # each test clip right or wrong, by measure
    seconds: list[float] = field(default_factory=list)

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
    return command("quickstart-video", (__doc__ or "").partition("\n")[0], run, arguments)


def run(options: argparse.Namespace) -> Path:
    """Draw the clips, train, probe, print the table and write the report.

    Args:
        options: ``out``, ``seeds`` and ``smoke``.

    Returns:
        The path of the page.
    """
    started = time.perf_counter()
    out: Path = options.out
    size = {"train": SMOKE_TRAIN, "test": SMOKE_TEST} if options.smoke else {"train": TRAIN, "test": TEST}
    data = render_video(out / "hearts", **size, seed=0)
    found = {kind: Trained() for kind in (*CONFIGS, UNTRAINED_IMAGE)}
    for kind in CONFIGS:
        for seed in range(options.seeds):
            _train(found, kind, data, out, seed, smoke=options.smoke)
            shown = ", ".join(f"{name} {found[kind].over_seeds(name)[-1]:.1f} %" for name in _MEASURES)
            print(f"  {kind}, seed {seed}: {shown} in {found[kind].seconds[-1]:.0f} s", flush=True)
    return _report(found, out, options.seeds, time.perf_counter() - started)


def _train(found: Mapping[str, Trained], kind: str, data: Path, out: Path, seed: int, *, smoke: bool) -> None:
    overrides: dict[str, Any] = {
        "+log_level": "ERROR",  # the table says what matters
        "+default_hooks": {"checkpoint": {"every_epochs": None}, "logger": {"interval": 8}},
    }
    if smoke or kind == UNTRAINED_VIDEO:
        overrides |= {"train_cfg.max_epochs": 1, "train_cfg.val_interval": 1, "param_scheduler.1.T_max": 1}
    if kind == UNTRAINED_VIDEO:  # the same way to the same probes, and no step moves a weight
        overrides |= {"optim_wrapper.optimizer.lr": 0.0}
    begun = time.perf_counter()
    folder = out / f"{kind.replace(' ', '_')}-{seed}"
    runner = train(CONFIGS[kind], work_dir=folder, seed=seed, data_root=data, overrides=overrides)
    seconds = time.perf_counter() - begun
    scalars = runner.message_hub.log_scalars
    kinds = {kind: "val/", **({UNTRAINED_IMAGE: "val/teacher/image/"} if kind == UNTRAINED_VIDEO else {})}
    for name, prefix in kinds.items():
        measures = {measure: float(scalars[prefix + measure].data[0][-1]) for measure in _MEASURES}
        found[name].measures.append(measures)
        found[name].seconds.append(seconds)
    found[kind].clips.append(dict(runner.val_evaluator.metrics[0].per_sample))


def _report(found: Mapping[str, Trained], out: Path, seeds: int, seconds: float) -> Path:
    rows = []
    for kind, result in found.items():
        figures = [spread(result.over_seeds(measure)) for measure in _MEASURES]
        rows.append([kind, *figures, f"{statistics.fmean(result.seconds):.0f}"])
    print(f"\n{text_table(_COLUMNS, rows)}")
    verdicts = []
    for other in (VIDEO, IMAGE, UNTRAINED_VIDEO):
        for task in ("motion", "shape"):
            theirs, ours = ([clips[f"{task}/linear"] for clips in found[kind].clips] for kind in (other, DISCOVR))
            verdicts.append(f"{task}, {DISCOVR} against {other}: {paired_bootstrap(theirs, ours).sentence()}")
    print("\n" + "\n".join(verdicts))
    page = Report("DISCOVR on drawn clips", f"Linear probes. {'. '.join(verdicts)}.")
    page.heading("Numbers").table(
        _COLUMNS,
        rows,
        caption="Accuracy (%) of probes of frozen clip embeddings on the test clips, trained on the training clips: 20 "
        f"nearest neighbours, and logistic regression; mean ± standard deviation of {seeds} seed(s). Chance is 25 % "
        "for motion and 33.3 % for shape.",
    )
    page.text(
        "No label is used but by the probes. The image branch embeds each frame by itself and averages: without the "
        "order of frames it can tell the axis of a motion and never its direction, so 50 % is its ceiling there. "
        "What is probed is the moving average of the weights, which is the teacher of each branch. The untrained "
        "branches are those of DISCOVR before its first step."
    )
    page.heading("Clips").figure(
        "clips",
        _clips(),
        alt="Twelve rows of six frames each: bright chambers that move inside a fan of speckle",
        caption="One clip of each motion and shape; time runs to the right.",
    )
    page.heading("Again").code(
        "hatch run quickstart-video\npython -m limbeck_audiovideo.rendered_video hearts\n"
        + "\n".join(f"limbeck train {config} --data-root hearts --seed 0" for config in dict.fromkeys(CONFIGS.values()))
    )
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    page.text(f"Run on {datetime.now(timezone.utc):%Y-%m-%d}, {machine}, {seconds:.0f} s in all.")
    return page.write(out)


def _clips() -> Figure:
    rows = []
    for number, (shape, motion) in enumerate((shape, motion) for shape in SHAPES for motion in MOTIONS):
        rows.append(np.hstack(list(draw_clip(np.random.default_rng([1, number]), motion, shape)[::2])))
    figure = Figure(figsize=(4, 8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.vstack(rows), cmap="gray", vmin=0, vmax=255)
    axes.set_yticks(
        [32 * number + 16 for number in range(len(rows))], [f"{s}, {m}" for s in SHAPES for m in MOTIONS], fontsize=7
    )
    axes.set_xticks([])
    return figure


if __name__ == "__main__":
    sys.exit(main())
