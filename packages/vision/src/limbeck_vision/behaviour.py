"""``python -m limbeck_vision.behaviour``: does a method help? Each arm at its best rate, over seeds, on test images.

For configs whose validation set is held out of the training images and whose test set is another one. The learning rate
of each config is chosen on its validation set (:mod:`limbeck_vision.tuning`), then the weights after the last epoch are
judged on its test set. The first config is the one that the others are compared with.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from limbeck_core.engine.checkpoints import write_atomic
from limbeck_core.engine.commands import evaluate
from limbeck_core.engine.config import load_config, parse_override
from limbeck_core.errors import ConfigError, LimbeckError
from limbeck_core.report import spread
from limbeck_vision.tuning import RATE, run_folder, tune


@dataclass(frozen=True)
class Outcome:
    """What one config came to.

    Args:
        title: The config, and what was changed for the test alone.
        rate: The learning rate that was chosen.
        metrics: Test metrics, a value a seed.
    """

    title: str
    rate: float
    metrics: Mapping[str, Sequence[float]]


def judge(
    config: str,
    rates: Sequence[float],
    *,
    seeds: int = 3,
    tuning_seeds: int = 2,
    metric: str | None = None,
    variants: Sequence[Mapping[str, Any]] = (),
    work_dir: str | Path = Path("work_dirs/behaviour"),
) -> list[Outcome]:
    """Choose a config's learning rate, train it with every seed, and test it.

    Args:
        config: A path or the name of an installed config, with ``val_dataloader`` and ``test_dataloader`` of different
            images.
        rates: Learning rates to choose from.
        seeds: Runs that are tested, with seeds 0 to N-1.
        tuning_seeds: Runs of each candidate while the rate is chosen.
        metric: By which the rate is chosen; the evaluator's first metric by default.
        variants: Values changed for further tests of the same weights, such as another way of inference; a variant
            that names a key which the config lacks is left out.
        work_dir: Folder of the runs; those that are done are not done again.

    Returns:
        The outcome, and one for each variant.

    Raises:
        ConfigError: as :func:`~limbeck_vision.tuning.tune`, or if the config tests on its validation set.
    """
    settings = load_config(config)
    if settings.get("test_dataloader") == settings.get("val_dataloader"):
        raise ConfigError(
            f"{config} tests on its validation set, by which the rate is chosen: give val_dataloader images held out "
            "of the training set, for example with HeldOut"
        )
    options: dict[str, Any] = {"held_out": 0, "metric": metric, "work_dir": work_dir}
    found = tune(config, {RATE: list(rates)}, seeds=tuning_seeds, **options)
    rate = found.best.values[RATE]
    tune(config, {RATE: [rate]}, seeds=seeds, **options)
    outcomes = []
    for changed in [{}, *(v for v in variants if all(_has(settings.model, key) for key in v))]:
        metrics: dict[str, list[float]] = {}
        for seed in range(seeds):
            folder = run_folder(config, Path(work_dir), {RATE: rate}, seed)
            overrides = {"log_level" if "log_level" in settings else "+log_level": "ERROR", **changed}
            values = evaluate(config, folder / "student.pth", work_dir=folder / "test", overrides=overrides)
            for name, value in values.items():
                metrics.setdefault(name, []).append(float(value))
        title = " ".join([config, *(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in changed.items())])
        outcomes.append(Outcome(title, rate, metrics))
    return outcomes


def _has(model: Any, key: str) -> bool:
    """Whether a dotted key ``model.x.y`` has its parent in a config's model and names an argument it knows."""
    node = model
    for part in key.split(".")[1:]:
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def table(outcomes: Sequence[Outcome], metrics: Sequence[str]) -> str:
    """Write outcomes as text: mean and standard deviation over seeds, and the gain over the first outcome.

    Args:
        outcomes: What :func:`judge` returned; the first is the one to compare with.
        metrics: Which metrics, the first of which the gain is of.
    """
    first = outcomes[0]
    rows = [("config", "rate", *metrics, "gain")]
    for outcome in outcomes:
        gains = [b - a for a, b in zip(first.metrics[metrics[0]], outcome.metrics[metrics[0]], strict=True)]
        cells = [spread(list(outcome.metrics[name])) if name in outcome.metrics else "-" for name in metrics]
        gain = f"{statistics.fmean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f})"
        rows.append((outcome.title, f"{outcome.rate:g}", *cells, "" if outcome is first else gain))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison from the command line.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m limbeck_vision.behaviour", description=__doc__)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="files, or names that 'limbeck list' shows")
    parser.add_argument("--rates", nargs="+", type=float, required=True, metavar="R", help=f"values of {RATE} to try")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs that are tested (default: 3)")
    parser.add_argument("--tuning-seeds", type=int, default=2, metavar="N", help="runs of a candidate (default: 2)")
    parser.add_argument("--metrics", nargs="+", default=["top1"], metavar="NAME", help="shown; the first one decides")
    parser.add_argument("--variants", nargs="+", default=[], metavar="K=V", help="test the same weights with this, too")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/behaviour"), metavar="D")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the models are tiny
    outcomes: list[Outcome] = []
    try:
        for config in options.configs:
            outcomes += judge(
                config,
                options.rates,
                seeds=options.seeds,
                tuning_seeds=options.tuning_seeds,
                metric=options.metrics[0],
                variants=[dict([parse_override(text)]) for text in options.variants],
                work_dir=options.work_dir,
            )
            print(f"{config}: rate {outcomes[-1].rate:g}", flush=True)
    except (LimbeckError, ValueError) as error:
        print(f"behaviour: {error}", file=sys.stderr)
        return 2
    print(table(outcomes, options.metrics))
    rows = [{"config": o.title, "rate": o.rate, "metrics": dict(o.metrics)} for o in outcomes]
    write_atomic(options.work_dir / "behaviour.json", json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
