"""``limbeck compare``: several configs over several seeds, and whether the difference is more than luck."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck_core.engine.checkpoints import write_atomic
from limbeck_core.engine.commands import WORK_DIRS, train
from limbeck_core.errors import ConfigError
from limbeck_core.report import Difference, Report, draw_curves, paired_bootstrap, spread
from limbeck_core.report.runs import read_run


@dataclass
class Contestant:
    """One config over its seeds.

    Args:
        name: The config, as it was given.
        histories: For each metric, one list of values over the validations a seed.
        outcomes: For each metric that the evaluator gives per sample, one list of values a seed (last validation).
    """

    name: str
    histories: dict[str, list[list[float]]] = field(default_factory=dict)
    outcomes: dict[str, list[list[float]]] = field(default_factory=dict)

    def last(self, metric: str) -> list[float]:
        """Value after the last epoch, a seed each."""
        return [history[-1] for history in self.histories[metric]]

    def best(self, metric: str, larger_is_better: bool) -> list[float]:
        """Best value of any epoch, a seed each: chosen on the test data, so only to compare with papers that do so."""
        choose = max if larger_is_better else min
        return [choose(history) for history in self.histories[metric]]


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Args:
        contestants: The configs, in order.
        metric: The metric that was judged.
        differences: Of each later config against the first, in the metric's unit.
        page: The report.
    """

    contestants: tuple[Contestant, ...]
    metric: str
    differences: Mapping[str, Difference]
    page: Path


def compare(
    configs: Sequence[str],
    *,
    seeds: int = 3,
    metric: str | None = None,
    smaller_is_better: bool = False,
    work_dir: str | Path | None = None,
    data_root: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Comparison:
    """Train every config with seeds 0 to N-1, and compare each with the first.

    Runs stand in ``work_dir/<config>-<seed>``; one that was interrupted goes on where it stood, and one that is done is
    not done again.

    Args:
        configs: Two or more paths or names of installed configs; the first is what the others are compared with.
        seeds: Runs of each.
        metric: What is judged; the evaluator's first metric by default.
        smaller_is_better: Whether a smaller value is a better one, as for errors.
        work_dir: Folder of the runs and the report. Default: ``work_dirs/compare``.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        overrides: Applied to every config alike.

    Returns:
        The comparison; ``report.html`` and ``compare.json`` stand in ``work_dir``.

    Raises:
        ConfigError: if fewer than two configs are given, two have one name, ``seeds`` is below 1, or a run has no
            validation to judge by.
    """
    if len(configs) < 2 or len(set(configs)) != len(configs):
        raise ConfigError(f"compare needs two or more different configs, got {list(configs)}")
    if seeds < 1:
        raise ConfigError(f"compare needs one seed or more, got {seeds}")
    out = Path(work_dir) if work_dir is not None else WORK_DIRS / "compare"
    if len({_folder_name(config) for config in configs}) != len(configs):
        raise ConfigError(f"two of {list(configs)} would write into one folder: give their files different names")
    contestants = []
    for config in configs:
        contestant = Contestant(config)
        for seed in range(seeds):
            folder = out / f"{_folder_name(config)}-{seed}"
            runner = train(config, work_dir=folder, resume=True, seed=seed, data_root=data_root, overrides=overrides)
            _collect(contestant, folder, runner)
        contestants.append(contestant)
    judged = metric or next(iter(contestants[0].histories))
    for contestant in contestants:
        if judged not in contestant.histories:
            raise ConfigError(f"{contestant.name} has no metric {judged!r}; it has: {', '.join(contestant.histories)}")
    first = contestants[0]
    differences = {c.name: _difference(first, c, judged, smaller_is_better) for c in contestants[1:]}
    page = _report(contestants, judged, differences, seeds, out, larger=not smaller_is_better)
    return Comparison(tuple(contestants), judged, differences, page)


def _folder_name(config: str) -> str:
    return Path(config).stem if Path(config).is_file() else config.replace("/", "-")


def _collect(contestant: Contestant, folder: Path, runner: Any) -> None:
    log = read_run(folder)
    names = [name for name in log.validation if not name.startswith("teacher/")]
    if not names:
        raise ConfigError(
            f"{contestant.name} validates nothing, so there is nothing to compare: give it a val_evaluator"
        )
    for name in names:
        contestant.histories.setdefault(name, []).append(log.history(name))
    outcomes = folder / "outcomes.json"
    found = {
        name: [float(value) for value in values]
        for judge in runner.val_evaluator.metrics
        for name, values in getattr(judge, "per_sample", {}).items()
    }
    if found:  # a run that was done before did not validate now
        write_atomic(outcomes, json.dumps(found))
    elif outcomes.is_file():
        found = json.loads(outcomes.read_text(encoding="utf-8"))
    for name, values in found.items():
        contestant.outcomes.setdefault(name, []).append(values)


def _difference(first: Contestant, second: Contestant, metric: str, smaller_is_better: bool) -> Difference:
    """By samples and seeds where the evaluator tells each sample's outcome, by seeds alone elsewhere."""
    counts = {len(c.outcomes.get(metric, [])) for c in (first, second)}
    if counts == {len(first.histories[metric])}:
        values = [first.outcomes[metric], second.outcomes[metric]]
    else:
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
        rows.append([contestant.name, spread(contestant.last(metric)), spread(best), f"{statistics.median(best):.2f}"])
    columns = ("config", f"{metric}, last epoch", f"{metric}, best epoch", "median of the best")
    page.heading(metric).table(columns, rows, caption=f"Mean ± standard deviation of {seeds} seed(s).")
    page.text(
        "The best epoch is chosen on the data it is measured on and flatters every method; the verdict rests on the "
        "last "
        "epoch. Gains are positive where the later config is better; the interval resamples seeds, and samples where "
        "the evaluator tells each sample's outcome."
    )
    others = [name for name in first.histories if name != metric and all(name in c.histories for c in contestants)]
    if others:
        table = [[c.name, *(spread(c.last(name), 3) for name in others)] for c in contestants]
        page.heading("Other metrics, last epoch").table(("config", *others), table)
    curves = {contestant.name: contestant.histories[metric] for contestant in contestants}
    if all(len({len(run) for run in runs}) == 1 for runs in curves.values()):
        picture = draw_curves(curves, x_label="validation", y_label=metric)
        page.heading("Curves").figure(metric.replace("/", "_"), picture, alt=f"{metric} over the runs")
    plain = {c.name: {"histories": c.histories} for c in contestants}
    write_atomic(out / "compare.json", json.dumps({"metric": metric, "runs": plain}, indent=1))
    return page.write(out)
