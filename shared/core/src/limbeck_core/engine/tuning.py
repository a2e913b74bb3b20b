"""``limbeck tune``: choose a learning rate, or any other number of a config, on samples held out of the training set.

Part of the training set is set aside, every candidate trains on the rest with several seeds, and the mean over seeds of
the held-out metric after the last epoch decides. The test set is not read.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from limbeck_core.engine.checkpoints import write_atomic
from limbeck_core.engine.commands import WORK_DIRS
from limbeck_core.engine.config import load_config
from limbeck_core.engine.held_out import hold_out
from limbeck_core.engine.trial import folder_name, run_trial
from limbeck_core.errors import ConfigError
from limbeck_core.report import spread


@dataclass(frozen=True)
class Candidate:
    """One setting over its seeds.

    Args:
        values: What was changed, by dotted key.
        scores: The metric on the held-out samples after the last epoch, a seed each.
    """

    values: Mapping[str, Any]
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.scores)


@dataclass(frozen=True)
class Tuning:
    """What :func:`tune` found for one config.

    Args:
        config: Name or path.
        metric: What was judged.
        candidates: All settings, in the order they were tried.
        best: The one with the best mean; the first of them, if several have it.
        at_the_edge: Keys whose best value is the smallest or largest that was tried, so that a better one may lie
            beyond.
    """

    config: str
    metric: str
    candidates: tuple[Candidate, ...]
    best: Candidate
    at_the_edge: tuple[str, ...] = field(default=())

    def text(self) -> str:
        """All candidates in words, and the best."""
        lines = [f"{self.config}: {self.metric} on held-out training samples, last epoch"]
        for candidate in self.candidates:
            mark = "  <- best" if candidate is self.best else ""
            setting = ", ".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in candidate.values.items())
            lines.append(f"  {setting:<32} {spread(candidate.scores)}{mark}")
        for key in self.at_the_edge:
            best = self.best.values[key]
            lines.append(f"  the best {key} is at the edge of what was tried: try values beyond {best}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Search:
    """How candidates are judged.

    Args:
        held_out: How many training samples are held out, or which share of them. They are the same for all candidates
            and are looked at as validation data are. 0 judges by the config's own validation set, for configs that hold
            it out of the training set already.
        seeds: Runs of each candidate, with seeds 0 to N-1.
        metric: What is judged; the evaluator's first metric by default.
        smaller_is_better: Whether a smaller value is a better one.
        clean: Arguments of the data set changed for the held-out part alone, such as ``{"label_noise": 0.0}`` to judge
            by right labels where the training labels have noise added.
        inside: See :func:`~limbeck_core.engine.held_out.hold_out`.
        teacher: Config of the teacher: it is trained first, without the held-out samples too, and put at
            ``model.teacher.checkpoint`` where the config has that. A teacher that has seen those samples would make its
            students look better than they are.
        epochs: Epochs of every run; a cosine over the whole run is cut to that length. Default: the config's.

    Raises:
        ConfigError: if ``seeds`` is below 1.
    """

    held_out: float = 0.25
    seeds: int = 2
    metric: str | None = None
    smaller_is_better: bool = False
    clean: Mapping[str, Any] = field(default_factory=dict)
    inside: bool = False
    teacher: str | Path | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"a search needs one seed or more, got {self.seeds}")


def tune(
    config: str | Path,
    grid: Mapping[str, Sequence[Any]],
    *,
    search: Search | None = None,
    name: str | None = None,
    work_dir: str | Path = WORK_DIRS / "tune",
    data_root: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Tuning:
    """Train a config with every combination of some values, and judge by samples held out of the training set.

    Runs stand in ``work_dir/<name>/<values>-<seed>``; one that is done with the same settings is not done again.

    Args:
        config: A path or the name of an installed config.
        grid: Values to try by dotted key, such as ``{"optim_wrapper.optimizer.lr": [0.05, 0.1]}``.
        search: How candidates are judged.
        name: Folder of this search; the config's name by default.
        work_dir: Folder of the runs and of ``<name>/tuning.json``. Searches that share it share the teacher they train.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        overrides: Other values to change by dotted key, for all candidates alike.

    Returns:
        The candidates and the best.

    Raises:
        ConfigError: if the grid is empty, the config has no data set or no such metric, or an override does not fit.
        DataError: if ``held_out`` leaves nothing on one side.
    """
    search = search or Search()
    if not grid or not all(len(values) for values in grid.values()):
        raise ConfigError("tuning needs values to try: give --rates, or --grid KEY=VALUE,VALUE")
    out = Path(work_dir) / (name or folder_name(config))
    settings = load_config(config, data_root=data_root, overrides=overrides or {})
    fixed = {**(overrides or {}), **_judged(settings, search)}
    if search.teacher is not None and "checkpoint" in (settings.model.get("teacher") or {}):
        fixed["model.teacher.checkpoint"] = str(_teacher(search, out, data_root))
    candidates, judged = [], search.metric
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        scores = []
        for seed in range(search.seeds):
            trial = run_trial(
                config, out / f"{_title(chosen)}-{seed}", seed=seed, data_root=data_root, overrides={**fixed, **chosen}
            )
            judged = judged or next(iter(trial.last))
            if judged not in trial.last:
                raise ConfigError(f"{config} has no metric {judged!r}; it has: {', '.join(trial.last)}")
            scores.append(trial.last[judged])
        candidates.append(Candidate(chosen, tuple(scores)))
    best = (min if search.smaller_is_better else max)(candidates, key=lambda candidate: candidate.mean)
    found = Tuning(str(config), str(judged), tuple(candidates), best, _edges(grid, best))
    rows = [{"values": dict(c.values), "scores": c.scores, "mean": c.mean} for c in candidates]
    plain = {"config": found.config, "metric": found.metric, "search": asdict(search), "best": dict(best.values)}
    write_atomic(out / "tuning.json", json.dumps({**plain, "candidates": rows}, indent=1, default=str))
    return found


def _teacher(search: Search, out: Path, data_root: str | Path | None) -> Path:
    """Train a teacher without the held-out samples, and return its weights."""
    config = str(search.teacher)
    whole_length = Search(search.held_out, seeds=1)
    settings = load_config(config, data_root=data_root)
    folder = out.parent / folder_name(config) / "teacher"
    run_trial(config, folder, seed=0, data_root=data_root, overrides=_judged(settings, whole_length))
    return folder / "student.pth"


def _judged(settings: Any, search: Search) -> dict[str, Any]:
    """Overrides that hold out, that shorten, and that keep many runs quiet."""
    changed = hold_out(settings, search.held_out, search.clean, inside=search.inside) if search.held_out else {}
    hooks = settings.get("default_hooks") or {}
    changed["default_hooks.logger" if "logger" in hooks else "+default_hooks.logger"] = {"interval": 10_000}
    changed["log_level" if "log_level" in settings else "+log_level"] = "ERROR"
    if search.epochs is not None:
        changed["train_cfg.max_epochs"] = search.epochs
        schedule = settings.get("param_scheduler")
        if isinstance(schedule, Mapping) and "T_max" in schedule:
            changed["param_scheduler.T_max"] = search.epochs
    return changed


def _title(values: Mapping[str, Any]) -> str:
    return "_".join(f"{key.rsplit('.', 1)[-1]}-{value}" for key, value in values.items()).replace("/", "-")


def _edges(grid: Mapping[str, Sequence[Any]], best: Candidate) -> tuple[str, ...]:
    numbers = {
        key: values
        for key, values in grid.items()
        if len(values) > 1 and all(isinstance(v, (int, float)) for v in values)
    }
    return tuple(key for key, values in numbers.items() if best.values[key] in (min(values), max(values)))
