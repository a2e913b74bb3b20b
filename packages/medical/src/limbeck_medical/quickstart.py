"""``hatch run quickstart-medical``: a small U-Net with and without DSD on volumes that are rendered here.

The configs ``medical/hippocampus/*`` and the same functions as ``limbeck train``; ``--data`` takes the real data set
instead. Nothing here but the order of the runs and the page that shows them.
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

from limbeck_core.build import build
from limbeck_core.engine.commands import train
from limbeck_core.engine.config import load_config
from limbeck_core.engine.quickstart import command, text_table
from limbeck_core.report import Report, draw_curves, paired_bootstrap, spread
from limbeck_medical.data import SegmentationDataset, render_msd
from limbeck_medical.dsd.distiller import STD
from limbeck_medical.evaluation import Pair, evaluate_files
from limbeck_medical.inference import predict_cases

PLAIN, SUPERVISED, DSD = "U-Net alone", "deep supervision", "DSD"
CONFIGS = {
    PLAIN: "medical/hippocampus/unet",
    SUPERVISED: "medical/hippocampus/unet_deep_supervision",
    DSD: "medical/hippocampus/unet_dsd",
}
RATES = (1e-2, 3e-2)
CASES, SMOKE_CASES = 60, 9


@dataclass
class Trained:
    """What was measured of one kind of training over its seeds."""

    summaries: list[dict[str, Any]] = field(default_factory=list)
    curves: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    spread: list[float] = field(default_factory=list)

    def over_seeds(self, measure: str) -> list[float]:
        """One mean over structures and cases a seed; NaN if no case has the measure."""
        found = (summary["structures"]["mean"][measure]["mean"] for summary in self.summaries)
        return [float("nan") if value is None else value for value in found]

    def dice_by_case(self) -> list[list[float]]:
        """For each seed the Dice of every case, mean of its structures; one absent from both counts as right."""
        return [
            [
                statistics.fmean(100.0 if s["dice"] is None else s["dice"] for s in structures.values())
                for structures in summary["cases"].values()
            ]
            for summary in self.summaries
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the quickstart.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    return command(
        "quickstart-medical", (__doc__ or "").partition("\n")[0], run, arguments, options=_add_options, threads=2
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="a real data set of two structures, such as Task04_Hippocampus")
    parser.add_argument("--tune", action="store_true", help="only print validation Dice of each kind by learning rate")


def run(options: argparse.Namespace) -> Path | None:
    """Render the data unless some are given, then tune, or train, measure and report.

    Args:
        options: ``out``, ``seeds``, ``smoke``, ``data`` and ``tune``.

    Returns:
        The path of the page; ``None`` after tuning.
    """
    data = options.data or render_msd(options.out / "data", SMOKE_CASES if options.smoke else CASES, seed=0)
    if options.tune:
        tune(data, options.out)
        return None
    return compare(data, options.out, seeds=options.seeds, epochs=1 if options.smoke else None)


def train_one(
    kind: str, data: Path, folder: Path, seed: int, *, epochs: int | None = None, rate: float | None = None
) -> Any:
    """Train by the kind's config, with another number of epochs or learning rate if given, and return the runner."""
    overrides: dict[str, Any] = {
        "+log_level": "ERROR",  # the table below says what matters
        "+default_hooks": {"checkpoint": {"every_epochs": None}, "logger": {"interval": 10}},
    }
    if rate is not None:
        overrides["optim_wrapper.optimizer.lr"] = rate
    if epochs is not None:
        overrides |= {"train_cfg.max_epochs": epochs, "param_scheduler.T_max": epochs}
    return train(CONFIGS[kind], work_dir=folder, seed=seed, data_root=data, overrides=overrides)


def tune(data: Path, out: Path) -> dict[str, float]:
    """Print the validation Dice of each kind by learning rate, and return each kind's best rate.

    The seed is another one than the runs of the table have, and test cases are not looked at.
    """
    best = {}
    for kind in CONFIGS:
        found = {}
        for rate in RATES:
            folder = out / f"tune-{_folder(kind)}-{rate:g}"
            runner = train_one(kind, data, folder, 100, rate=rate)
            found[rate] = float(runner.message_hub.get_scalar("val/dice").data[0][-1])
            print(f"  {kind}, learning rate {rate:g}: validation Dice {found[rate]:.2f} %", flush=True)
        best[kind] = max(found, key=found.__getitem__)
        print(f"{kind}: {best[kind]:g}")
    return best


def compare(data: Path, out: Path, *, seeds: int = 3, epochs: int | None = None) -> Path:
    """Train, measure on the files of the test cases, print the table and write the report.

    Args:
        data: Folder of the data set, whose parts are those of the configs.
        out: Folder for runs, predictions and report.
        seeds: Runs of each kind.
        epochs: Of every run; those of the configs by default.

    Returns:
        The path of the page.
    """
    started = time.perf_counter()
    settings = load_config(CONFIGS[PLAIN], data_root=data)
    test: SegmentationDataset = build({**settings.test_dataloader.dataset, "cache": "none"})
    classes = test.classes or tuple(str(label) for label in range(settings.test_evaluator.classes))
    found: dict[str, Trained] = {}
    for kind in CONFIGS:
        found[kind] = Trained()
        for seed in range(seeds):
            begun = time.perf_counter()
            folder = out / f"{_folder(kind)}-{seed}"
            runner = train_one(kind, data, folder, seed, epochs=epochs)
            found[kind].seconds.append(time.perf_counter() - begun)
            found[kind].curves.append([float(value) for value in runner.message_hub.get_scalar("val/dice").data[0]])
            if f"train/{STD}" in runner.message_hub.log_scalars:
                found[kind].spread.append(float(runner.message_hub.get_scalar(f"train/{STD}").data[0][-1]))
            paths = predict_cases(runner.model.student, test, folder / "predictions", call=runner.model.call)
            pairs = [
                Pair(case.name, path, case.label, case.images[0])
                for case, path in zip(test.cases, paths, strict=True)
                if case.label is not None
            ]
            pictures = out / "pictures" / _folder(kind) if seed == 0 else None
            found[kind].summaries.append(evaluate_files(pairs, classes, pictures=pictures))
            dice, hd95 = (found[kind].over_seeds(measure)[-1] for measure in ("dice", "hd95"))
            seconds = found[kind].seconds[-1]
            print(f"  {kind}, seed {seed}: Dice {dice:.2f} %, HD95 {hd95:.2f} mm in {seconds:.0f} s", flush=True)
    return _report(found, test, data, out, seeds, time.perf_counter() - started)


def _folder(kind: str) -> str:
    return CONFIGS[kind].rpartition("/")[2]


_COLUMNS = ("training", "Dice (%)", "HD95 (mm)", "ASD (mm)", "volume error (%)", "missed", "training (s)")


def _rows(found: Mapping[str, Trained]) -> list[list[str]]:
    return [
        [
            kind,
            *(spread(result.over_seeds(measure)) for measure in ("dice", "hd95", "asd", "volume_error")),
            str(sum(summary["structures"]["mean"]["missed"] for summary in result.summaries)),
            f"{statistics.fmean(result.seconds):.0f}",
        ]
        for kind, result in found.items()
    ]


def _report(
    found: Mapping[str, Trained], test: SegmentationDataset, data: Path, out: Path, seeds: int, seconds: float
) -> Path:
    rows = _rows(found)
    print(f"\n{text_table(_COLUMNS, rows)}")
    by_case = {kind: result.dice_by_case() for kind, result in found.items()}
    verdicts = {other: paired_bootstrap(by_case[other], by_case[DSD]).sentence() for other in (PLAIN, SUPERVISED)}
    lead = "; ".join(f"DSD against {other}: {verdict} of Dice" for other, verdict in verdicts.items())
    print(f"\n{lead}")
    page = Report("Dual self-distillation of a small U-Net", f"{lead}.")
    page.heading("Numbers").table(
        _COLUMNS,
        rows,
        caption=f"{len(test.cases)} test cases of {data.name}, on the grid of their files; mean of the structures; "
        f"mean ± standard deviation of {seeds} seed(s), last epoch. Missed: structures without a predicted voxel, over "
        "all seeds; their Dice is 0, and HD95 and ASD leave them out.",
    )
    page.text(
        "All three train one network with the same crops, epochs and seeds; each kind has its own learning rate, the "
        "best of the same two on validation cases of MSD's hippocampus (`--tune`), so test cases decided nothing. "
        "Deep supervision is DSD without its divergences: what is gained beyond it is self-distillation's. The "
        "intervals resample test cases and seeds."
    )
    if found[DSD].spread:
        page.text(
            f"`{STD}` at the end of training: {np.mean(found[DSD].spread):.3f}. Near 0 the encoder's teaching head "
            "says the same of every voxel, and its students learn nothing."
        )
    page.heading("Learning").figure(
        "dice",
        draw_curves({kind: r.curves for kind, r in found.items()}, x_label="validation", y_label="validation Dice (%)"),
        alt="Validation Dice over the run, of each kind of training",
        caption="Thin lines: one seed each. Bold: their mean.",
    )
    page.heading("Cases")
    worst = min(range(len(test.cases)), key=lambda index: by_case[DSD][0][index])
    for kind in (PLAIN, DSD):
        name = test.cases[worst].name
        page.figure(
            f"{_folder(kind)}_case",
            out / "pictures" / _folder(kind) / f"{name}.png",
            alt=f"Slices of {name} with outlines of truth and of the prediction of {kind}",
            caption=f"{kind}, seed 0, the test case that DSD does worst.",
        )
    page.heading("Again").code(
        "hatch run quickstart-medical\n"
        + "\n".join(f"limbeck train {config} --data-root {data} --seed 0" for config in CONFIGS.values())
    )
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    page.text(f"Run on {datetime.now(timezone.utc):%Y-%m-%d}, {machine}, {seconds:.0f} s in all.")
    return page.write(out)


if __name__ == "__main__":
    sys.exit(main())
