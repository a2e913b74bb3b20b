"""``python -m limbeck_vision.arms``: arms of an experiment, each at its own best learning rate, on the test images.

An arm is a config and values changed in it: a control, another fraction of the data, another loss weight. Its learning
rate is chosen on held-out training images, as by :mod:`limbeck_vision.tuning`; then it is trained on all training
images with several seeds and judged on its validation set, which for digits and CIFAR are the test images; they chose
nothing. Each arm is compared with the first by paired bootstrap. For configs that hold their validation set out of the
training images themselves, :mod:`limbeck_vision.behaviour` is the command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from limbeck_core.engine.commands import train
from limbeck_core.engine.config import parse_override
from limbeck_core.errors import ConfigError, LimbeckError
from limbeck_core.report import Difference, paired_bootstrap, spread
from limbeck_core.report.runs import read_run
from limbeck_vision.tuning import RATE, tune

_QUIET = {
    "+log_level": "ERROR",
    "+default_hooks": {"checkpoint": {"every_epochs": None}, "logger": {"interval": 10_000}},
}


@dataclass(frozen=True)
class Arm:
    """One arm of an experiment.

    Args:
        name: What it is called in the table.
        config: A path or the name of an installed config.
        overrides: Values to change in it, by dotted key.
        tuning_overrides: Values to change only while the rate is chosen, such as a teacher that has not seen the
            held-out images.
    """

    name: str
    config: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    tuning_overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What an arm came to.

    Args:
        arm: The arm.
        rate: Its learning rate, the best of those tried.
        outcomes: For each seed one value a test image, 100 where it was right and 0 where it was wrong.
        metrics: All metrics after the last epoch, a seed each.
        difference: Against the first arm; ``None`` for that one.
    """

    arm: Arm
    rate: float
    outcomes: tuple[tuple[float, ...], ...]
    metrics: tuple[Mapping[str, float], ...]
    difference: Difference | None

    @property
    def accuracies(self) -> list[float]:
        """Accuracy of each seed in per cent."""
        return [sum(run) / len(run) for run in self.outcomes]

    def sentence(self, metric: str | None = None) -> str:
        """The outcome in words, with one more metric if asked."""
        also = "" if metric is None else f", {metric} {spread([run[metric] for run in self.metrics])}"
        against = "" if self.difference is None else f"; against the first {self.difference.sentence()}"
        return f"{self.arm.name}: {spread(self.accuracies)} %{also} at rate {self.rate:g}{against}"


def run_arms(
    arms: Sequence[Arm],
    *,
    rates: Sequence[float],
    seeds: int = 3,
    tuning_seeds: int = 1,
    held_out: float = 0.25,
    inside: bool = False,
    clean: Mapping[str, Any] | None = None,
    metric: str | None = None,
    work_dir: str | Path = Path("work_dirs/arms"),
) -> list[Outcome]:
    """Tune and test every arm, and print each as it is done.

    Args:
        arms: The arms; the others are compared with the first.
        rates: Learning rates to try for each; one rate is taken as it is.
        seeds: Test runs of each arm, with seeds 0 to N-1.
        tuning_seeds: Runs of each rate.
        held_out: See :func:`limbeck_vision.tuning.tune`.
        inside: See :func:`limbeck_vision.tuning.held_out_parts`.
        clean: See :func:`limbeck_vision.tuning.tune`.
        metric: What the rate is chosen by, and printed besides the accuracy; larger is better.
        work_dir: Folder of all runs.

    Returns:
        One outcome an arm, in order.

    Raises:
        ConfigError: if there is no arm or no rate, two arms have one name, or a config's evaluator does not tell which
            images it got right.
    """
    if not arms or not rates or len({arm.name for arm in arms}) != len(arms):
        raise ConfigError("an experiment needs arms of different names and learning rates to try: --arm, --rates")
    done: list[Outcome] = []
    for arm in arms:
        folder = Path(work_dir) / arm.name
        rate = float(rates[0])
        if len(rates) > 1:
            found = tune(
                arm.config,
                {RATE: list(rates)},
                held_out=held_out,
                seeds=tuning_seeds,
                inside=inside,
                clean=clean,
                metric=metric,
                work_dir=folder / "tuning",
                overrides={**arm.overrides, **arm.tuning_overrides},
            )
            rate = float(found.best.values[RATE])
        values = {**_QUIET, **arm.overrides, RATE: rate}
        runs = [_tested(arm, values, folder / f"seed-{seed}", seed) for seed in range(seeds)]
        outcomes, metrics = tuple(run[0] for run in runs), tuple(run[1] for run in runs)
        difference = paired_bootstrap(done[0].outcomes, outcomes) if done else None
        done.append(Outcome(arm, rate, outcomes, metrics, difference))
        print(done[-1].sentence(metric), flush=True)
    return done


def _tested(
    arm: Arm, values: Mapping[str, Any], folder: Path, seed: int
) -> tuple[tuple[float, ...], Mapping[str, float]]:
    runner = train(arm.config, work_dir=folder, seed=seed, overrides=values)
    log = read_run(folder)
    metrics = {name: log.history(name)[-1] for name in log.validation}
    for judge in runner.val_evaluator.metrics:
        for outcome in getattr(judge, "per_sample", {}).values():
            return tuple(float(value) for value in outcome), metrics
    raise ConfigError(f"the evaluator of {arm.config} does not tell which images it got right")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an experiment from the command line.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m limbeck_vision.arms",
        description="Compare arms of an experiment, each at its own best learning rate, on the test images.",
    )
    parser.add_argument(
        "--arm", nargs="+", action="append", required=True, metavar="WORD", help="NAME CONFIG [K=V ...]; give several"
    )
    parser.add_argument("--rates", nargs="+", type=float, required=True, metavar="R", help="learning rates to try")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="test runs of each arm (default: 3)")
    parser.add_argument("--tuning-seeds", type=int, default=1, metavar="N", help="runs of each rate (default: 1)")
    parser.add_argument("--held-out", type=float, default=0.25, metavar="N", help="images or share (default: 0.25)")
    parser.add_argument("--inside", action="store_true", help="hold out before the config changes its data set")
    parser.add_argument(
        "--clean", nargs="+", default=[], metavar="K=V", help="data set's arguments for the held-out part"
    )
    parser.add_argument("--metric", metavar="NAME", help="what the rate is chosen by (default: the evaluator's first)")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/arms"), metavar="D")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        for words in options.arm:
            if len(words) < 2:
                raise ConfigError(f"--arm takes NAME CONFIG [K=V ...], got {' '.join(words)!r}")
        arms = [Arm(name, config, dict(parse_override(v) for v in values)) for name, config, *values in options.arm]
        run_arms(
            arms,
            rates=options.rates,
            seeds=options.seeds,
            tuning_seeds=options.tuning_seeds,
            held_out=options.held_out,
            inside=options.inside,
            clean=dict(parse_override(text) for text in options.clean),
            metric=options.metric,
            work_dir=options.work_dir,
        )
    except (LimbeckError, ValueError) as error:
        print(f"arms: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
