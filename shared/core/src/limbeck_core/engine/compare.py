"""``limbeck compare``: several arms over several seeds, and whether the difference is more than luck."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from limbeck_core.engine.checkpoints import write_atomic
from limbeck_core.engine.commands import WORK_DIRS, evaluate
from limbeck_core.engine.config import load_config, parse_override
from limbeck_core.engine.trial import RATE, Trial, folder_name, has_own_test, run_trial
from limbeck_core.engine.tuning import Search, tune
from limbeck_core.errors import ConfigError
from limbeck_core.report import Difference, Report, draw_curves, paired_bootstrap, spread


@dataclass(frozen=True)
class Arm:
    """One arm of an experiment: a config, and values changed in it.

    Args:
        config: A path, or the name of an installed config.
        overrides: Values to change in it, by dotted key.
        name: What it is called; the config by default.
        search_overrides: Values to change only while its learning rate is chosen, such as a teacher that has not seen
            the held-out samples.
    """

    config: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    search_overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What it is called in tables."""
        return self.name or self.config

    @property
    def folder(self) -> str:
        """How the folders of its runs begin."""
        return (self.name or folder_name(self.config)).replace("/", "-")


@dataclass
class Contestant:
    """One arm over its seeds.

    Args:
        name: What the arm is called.
        trials: What came of its runs, a seed each.
        rate: Its learning rate, if one was chosen.
    """

    name: str
    trials: list[Trial] = field(default_factory=list)
    rate: float | None = None

    @property
    def metrics(self) -> list[str]:
        """Names of what can be judged."""
        return list(self.trials[0].last)

    def last(self, metric: str) -> list[float]:
        """Value after the last epoch, a seed each: of the test, if the config has one of its own."""
        return [trial.last[metric] for trial in self.trials]

    def histories(self, metric: str) -> list[list[float]]:
        """Values over the validations, a seed each; nothing for a metric that only the test gives."""
        return [list(trial.histories[metric]) for trial in self.trials if metric in trial.histories]

    def best(self, metric: str, larger_is_better: bool) -> list[float]:
        """Best validation of any epoch, a seed each: chosen on the data it is measured on."""
        choose = max if larger_is_better else min
        return [choose(history) for history in self.histories(metric)]

    def outcomes(self, metric: str) -> list[list[float]]:
        """Values for each sample, a seed each, as far as the evaluator gives them."""
        return [list(trial.outcomes[metric]) for trial in self.trials if metric in trial.outcomes]


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Args:
        contestants: The arms, in order.
        metric: The metric that was judged.
        differences: Of each later arm against the first, in the metric's unit.
        page: The report.
    """

    contestants: tuple[Contestant, ...]
    metric: str
    differences: Mapping[str, Difference]
    page: Path


def compare(
    arms: Sequence[str | Arm],
    *,
    seeds: int = 3,
    metric: str | None = None,
    smaller_is_better: bool = False,
    rates: Sequence[float] = (),
    search: Search | None = None,
    variants: Sequence[str] = (),
    work_dir: str | Path | None = None,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Comparison:
    """Train every arm with seeds 0 to N-1, and compare each with the first.

    Runs stand in ``work_dir/<arm>-<seed>``; one that was interrupted goes on where it stood, and one that is done with
    the same settings is not done again. A config whose test set is another one than its validation set is judged on its
    test set, the others on their validation set.

    Args:
        arms: Two or more arms, or configs by path or name; the first is what the others are compared with. One is
            enough if there are variants.
        seeds: Runs of each.
        metric: What is judged; the evaluator's first metric by default.
        smaller_is_better: Whether a smaller value is a better one, as for errors.
        rates: Learning rates to choose each arm's own from, by ``search``; a single one is taken as it is. Without any,
            the configs' own rates are used.
        search: How the rate is chosen; its metric, unless it names one, is the one that is judged.
        variants: Values, as ``KEY=VALUE``, with which the weights of each arm are judged once more, such as another way
            of inference; only in arms whose config has the key's parent.
        work_dir: Folder of the runs and the report. Default: ``work_dirs/compare``.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        overrides: Applied to every arm alike.

    Returns:
        The comparison; ``report.html`` and ``compare.json`` stand in ``work_dir``.

    Raises:
        ConfigError: if fewer than two arms are given, two have one name, ``seeds`` is below 1, a run has no validation
            to judge by, or a rate would be chosen on the data that judge.
    """
    chosen = [arm if isinstance(arm, Arm) else Arm(arm) for arm in arms]
    titles = [arm.title for arm in chosen]
    if len(set(titles)) != len(titles) or len(titles) + len(variants) < 2 or not titles:
        raise ConfigError(f"compare needs two or more different configs, got {titles}")
    if seeds < 1:
        raise ConfigError(f"compare needs one seed or more, got {seeds}")
    if len({arm.folder for arm in chosen}) != len(chosen):
        raise ConfigError(f"two of {titles} would write into one folder: give their files different names")
    search = search or Search()
    if metric is not None and search.metric is None:
        search = replace(search, metric=metric, smaller_is_better=smaller_is_better)
    out = Path(work_dir) if work_dir is not None else WORK_DIRS / "compare"
    common = dict(parse_override(text) for text in overrides)
    contestants: list[Contestant] = []
    for arm in chosen:
        values = {**common, **arm.overrides}
        rate = _rate(arm, values, rates, search, out, data_root)
        if rate is not None:
            values[RATE] = rate
        contestant = Contestant(arm.title, rate=rate)
        for seed in range(seeds):
            folder = out / f"{arm.folder}-{seed}"
            options: dict[str, Any] = {"data_root": data_root, "overrides": values}
            contestant.trials.append(run_trial(arm.config, folder, seed=seed, test=True, **options))
        contestants += [contestant, *(_variant(arm, contestant, text, values, out, data_root) for text in variants)]
    contestants = [contestant for contestant in contestants if contestant.trials]
    judged = metric or contestants[0].metrics[0]
    for contestant in contestants:
        if judged not in contestant.metrics:
            raise ConfigError(f"{contestant.name} has no metric {judged!r}; it has: {', '.join(contestant.metrics)}")
    first = contestants[0]
    differences = {c.name: _difference(first, c, judged, smaller_is_better) for c in contestants[1:]}
    page = _report(contestants, judged, differences, seeds, out, larger=not smaller_is_better)
    return Comparison(tuple(contestants), judged, differences, page)


def _rate(
    arm: Arm,
    values: Mapping[str, Any],
    rates: Sequence[float],
    search: Search,
    out: Path,
    data_root: str | Path | None,
) -> float | None:
    if len(rates) < 2:
        return float(rates[0]) if rates else None
    if not search.held_out and not has_own_test(load_config(arm.config, data_root=data_root, overrides=values)):
        raise ConfigError(
            f"{arm.config} tests on its validation set, by which the rate would be chosen: hold out training samples "
            "(--held-out), or give the config a test_dataloader of other data"
        )
    found = tune(
        arm.config,
        {RATE: list(rates)},
        search=search,
        name=arm.folder,
        work_dir=out / "search",
        data_root=data_root,
        overrides={**values, **arm.search_overrides},
    )
    return float(found.best.values[RATE])


def _variant(
    arm: Arm, judged: Contestant, text: str, values: Mapping[str, Any], out: Path, data_root: str | Path | None
) -> Contestant:
    """The same weights, tested with one more value changed; without a run where the config lacks the key."""
    key, value = parse_override(text)
    variant = Contestant(f"{arm.title} {key.rsplit('.', 1)[-1]}={value}", rate=judged.rate)
    settings = load_config(arm.config, data_root=data_root, overrides=values)
    first, *between = key.split(".")[:-1] or [key]
    node = settings.get(first)
    for part in between:
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        return variant
    for seed in range(len(judged.trials)):
        folder = out / f"{arm.folder}-{seed}"
        changed = {**values, key: value}
        metrics = evaluate(
            arm.config, folder / "student.pth", work_dir=folder / "variant", data_root=data_root, overrides=changed
        )
        tested = {name: float(number) for name, number in metrics.items() if not name.startswith("teacher/")}
        variant.trials.append(Trial({}, tested, {}))
    return variant


def _difference(first: Contestant, second: Contestant, metric: str, smaller_is_better: bool) -> Difference:
    """By samples and seeds where the evaluator tells each sample's outcome, by seeds alone elsewhere."""
    values = [first.outcomes(metric), second.outcomes(metric)]
    if any(len(runs) != len(first.trials) for runs in values):
        values = [[[value] for value in contestant.last(metric)] for contestant in (first, second)]
    if smaller_is_better:
        values = [[[-value for value in run] for run in runs] for runs in values]
    return paired_bootstrap(values[0], values[1])


def _report(
    contestants: Sequence[Contestant],
    metric: str,
    differences: Mapping[str, Difference],
    seeds: int,
    out: Path,
    *,
    larger: bool,
) -> Path:
    first = contestants[0]
    verdicts = [f"{name} against {first.name}: {found.sentence()}." for name, found in differences.items()]
    page = Report("Comparison", " ".join(verdicts))
    rows = []
    for contestant in contestants:
        best = contestant.best(metric, larger)
        rate = "as in the config" if contestant.rate is None else f"{contestant.rate:g}"
        cells = [spread(best), f"{statistics.median(best):.2f}"] if best else ["-", "-"]
        rows.append([contestant.name, rate, spread(contestant.last(metric)), *cells])
    columns = ("arm", "rate", f"{metric}, last epoch", f"{metric}, best epoch", "median of the best")
    page.heading(metric).table(columns, rows, caption=f"Mean ± standard deviation of {seeds} seed(s).")
    page.text(
        "The best epoch is chosen on the data it is measured on and flatters every method; the verdict rests on the "
        "last epoch: on the test data where a config has data of its own for that, else on the validation data. Gains "
        "are positive where the later arm is better; the interval resamples seeds, and samples where the evaluator "
        "tells each sample's outcome."
    )
    others = [name for name in first.metrics if name != metric and all(name in c.metrics for c in contestants)]
    if others:
        table = [[c.name, *(spread(c.last(name), 3) for name in others)] for c in contestants]
        page.heading("Other metrics, last epoch").table(("arm", *others), table)
    curves = {contestant.name: contestant.histories(metric) for contestant in contestants}
    curves = {name: runs for name, runs in curves.items() if runs}
    if curves and all(len({len(run) for run in runs}) == 1 for runs in curves.values()):
        picture = draw_curves(curves, x_label="validation", y_label=metric)
        page.heading("Curves").figure(metric.replace("/", "_"), picture, alt=f"{metric} over the runs")
    plain = {
        c.name: {
            "rate": c.rate,
            "last": {name: c.last(name) for name in c.metrics},
            "histories": {name: c.histories(name) for name in c.trials[0].histories},
        }
        for c in contestants
    }
    write_atomic(out / "compare.json", json.dumps({"metric": metric, "runs": plain}, indent=1))
    return page.write(out)
