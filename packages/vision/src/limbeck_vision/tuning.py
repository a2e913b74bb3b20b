"""``python -m limbeck_vision.tuning``: choose a learning rate, or any other number of a config, on held-out images.

Part of the training images is set aside, every candidate trains on the rest with several seeds, and the mean over
seeds of the held-out metric after the last epoch decides. The test images are not read.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from limbeck_core.engine.checkpoints import write_atomic
from limbeck_core.engine.commands import train
from limbeck_core.engine.config import load_config, parse_override
from limbeck_core.errors import ConfigError, LimbeckError
from limbeck_core.report import spread
from limbeck_core.report.runs import read_run
from limbeck_vision.data import HeldOut

RATE = "optim_wrapper.optimizer.lr"
_QUIET = {"log_level": "ERROR"}  # a search is many runs, and the table says what matters


@dataclass(frozen=True)
class Candidate:
    """One setting over its seeds.

    Args:
        values: What was changed, by dotted key.
        scores: The metric on the held-out images after the last epoch, a seed each.
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


def tune(
    config: str | Path,
    grid: Mapping[str, Sequence[Any]],
    *,
    held_out: float = 0.25,
    seeds: int = 2,
    metric: str | None = None,
    smaller_is_better: bool = False,
    clean: Mapping[str, Any] | None = None,
    teacher: str | Path | None = None,
    inside: bool = False,
    work_dir: str | Path = Path("work_dirs/tuning"),
    data_root: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Tuning:
    """Train a config with every combination of some values, and judge by images that are held out of the training set.

    Runs stand in ``work_dir/<config>/<values>-<seed>``; one that is done with the same settings is not done again.

    Args:
        config: A path or the name of an installed config; its ``train_dataloader.dataset`` must be one of
            :mod:`limbeck_vision.data`.
        grid: Values to try by dotted key, such as ``{"optim_wrapper.optimizer.lr": [0.05, 0.1]}``.
        held_out: How many training images are held out, or which share of them. They are the same for all candidates
            and are taken without random geometry. 0 judges by the config's own validation set, for configs that hold it
            out of the training images already.
        seeds: Runs of each candidate, with seeds 0 to N-1.
        metric: What is judged; the evaluator's first metric by default.
        smaller_is_better: Whether a smaller value is a better one.
        clean: Arguments of the data set changed for the held-out part alone, such as ``{"label_noise": 0.0}`` to judge
            by right labels where the training labels have noise added.
        teacher: Config of the teacher: it is trained first, without the held-out images too, and put at
            ``model.teacher.checkpoint`` where the config has that. A teacher that has seen those images would make its
            students look better than they are.
        inside: See :func:`held_out_parts`.
        work_dir: Folder of the runs and of ``<config>/tuning.json``.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        overrides: Other values to change by dotted key, for all candidates alike.

    Returns:
        The candidates and the best.

    Raises:
        ConfigError: if the grid is empty, ``seeds`` is below 1, the config has no data set or no such metric, or an
            override does not fit.
        ValueError: if ``held_out`` leaves nothing on one side.
    """
    if not grid or not all(len(values) for values in grid.values()):
        raise ConfigError("tuning needs values to try: give --rates, or --grid KEY=VALUE,VALUE")
    if seeds < 1:
        raise ConfigError(f"tuning needs one seed or more, got {seeds}")
    settings = load_config(config, data_root=data_root, overrides=overrides or {})
    split = held_out_parts(settings, held_out, clean, inside=inside) if held_out else {}
    fixed = {**(overrides or {}), **split, **_logging(settings)}
    if teacher is not None and "checkpoint" in (settings.model.get("teacher") or {}):
        fixed["model.teacher.checkpoint"] = str(_teacher(teacher, held_out, Path(work_dir), data_root))
    out = _folder(config, Path(work_dir))
    candidates, judged = [], metric
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        scores = []
        for seed in range(seeds):
            folder = run_folder(config, Path(work_dir), chosen, seed)
            judged, score = _run(config, folder, seed, {**fixed, **chosen}, judged)
            scores.append(score)
        candidates.append(Candidate(chosen, tuple(scores)))
    best = (min if smaller_is_better else max)(candidates, key=lambda candidate: candidate.mean)
    found = Tuning(str(config), str(judged), tuple(candidates), best, _edges(grid, best))
    write_atomic(out / "tuning.json", json.dumps(_plain(found, held_out, seeds), indent=1, default=str))
    return found


def run_folder(config: str | Path, work_dir: Path, values: Mapping[str, Any], seed: int) -> Path:
    """Return where :func:`tune` keeps the run of one candidate and seed."""
    return _folder(config, work_dir) / f"{_title(values)}-{seed}"


def _folder(config: str | Path, work_dir: Path) -> Path:
    return work_dir / (Path(config).stem if Path(config).is_file() else str(config).replace("/", "-"))


def _teacher(config: str | Path, held_out: float, work_dir: Path, data_root: str | Path | None) -> Path:
    """Train a teacher without the held-out images, and return its weights."""
    settings = load_config(config, data_root=data_root)
    folder = _folder(config, work_dir) / "teacher"
    split = held_out_parts(settings, held_out) if held_out else {}
    _run(config, folder, 0, {**split, **_logging(settings)}, None)
    return folder / "student.pth"


def held_out_parts(
    settings: Any, held_out: float, clean: Mapping[str, Any] | None = None, *, inside: bool = False
) -> dict[str, Any]:
    """Cut a config's training images in two: overrides that train on one part and validate on the other.

    Args:
        settings: A loaded config.
        held_out: How many training images are held out, or which share of them.
        clean: Arguments of the data set changed for the held-out part alone.
        inside: Hold out before whatever the config does to its data set (pruning, a long tail) instead of after it, so
            that the held-out part is of the whole data set.

    Returns:
        The two data sets by dotted key.

    Raises:
        ConfigError: if the config lacks one of the two data sets, or ``clean`` names an argument that is not given.
    """
    clean = clean or {}
    for part in ("train_dataloader", "val_dataloader"):
        if not settings.get(part) or "dataset" not in settings[part]:
            raise ConfigError(f"tuning needs {part}.dataset, which this config lacks")
    whole = _absolute(settings.train_dataloader.dataset.to_dict())
    looked_at = _changed(whole, {"transform": _transform(settings.val_dataloader.dataset), **clean}, clean)
    common = {
        "type": f"{HeldOut.__module__}.{HeldOut.__qualname__}",  # a name, which the log can print
        "count": int(held_out) if held_out >= 1 else held_out,
    }
    train = {**common, "dataset": whole, "held_out": False}
    if inside:
        train = _around_innermost(whole, {**common, "held_out": False})
        while "dataset" in looked_at:
            looked_at = looked_at["dataset"]
    return {
        "train_dataloader.dataset": train,
        "val_dataloader.dataset": {**common, "dataset": looked_at, "held_out": True},
    }


def _around_innermost(dataset: dict[str, Any], wrapper: Mapping[str, Any]) -> dict[str, Any]:
    if "dataset" in dataset:
        return {**dataset, "dataset": _around_innermost(dataset["dataset"], wrapper)}
    return {**wrapper, "dataset": dataset}


def _transform(dataset: Any) -> Any:
    """The geometry that images are judged in: the validation set's own."""
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    found = dataset.get("transform")
    return found.to_dict() if hasattr(found, "to_dict") else found


def _absolute(dataset: dict[str, Any]) -> dict[str, Any]:
    """Fix the folder of the data, which a second reading of the config would put behind the data root again."""
    changed = {name: _absolute(value) if name == "dataset" else value for name, value in dataset.items()}
    root: Any = changed.get("root")
    if isinstance(root, str):
        changed["root"] = str(Path(root).absolute())
    return changed


def _changed(dataset: dict[str, Any], values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Change arguments of the innermost data set; those of ``known`` must be there already."""
    if "dataset" in dataset:
        return {**dataset, "dataset": _changed(dataset["dataset"], values, known)}
    for name in known:
        if name not in dataset:
            raise ConfigError(f"--clean {name} changes nothing: the training data set is given {', '.join(dataset)}")
    return {**dataset, **values}


def _logging(settings: Any) -> dict[str, Any]:
    hooks = settings.get("default_hooks") or {}
    logger = {"interval": 10_000}
    quiet = {name if name in settings else f"+{name}": value for name, value in _QUIET.items()}
    return {**quiet, "default_hooks.logger" if "logger" in hooks else "+default_hooks.logger": logger}


def _run(
    config: str | Path, folder: Path, seed: int, overrides: dict[str, Any], metric: str | None
) -> tuple[str, float]:
    note = folder / "tuned.json"
    asked = json.dumps(overrides, sort_keys=True, default=str)
    known = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    if known.get("asked") != asked:
        train(config, work_dir=folder, seed=seed, overrides=overrides)
        log = read_run(folder)
        names = [name for name in log.validation if not name.startswith("teacher/")]
        known = {"asked": asked, "metrics": {name: log.history(name)[-1] for name in names}}
        write_atomic(note, json.dumps(known))
    metrics: dict[str, float] = known["metrics"]
    judged = metric or next(iter(metrics), "")
    if judged not in metrics:
        raise ConfigError(f"{config} has no metric {judged!r}; it has: {', '.join(metrics) or 'none'}")
    return judged, metrics[judged]


def _title(values: Mapping[str, Any]) -> str:
    return "_".join(f"{key.rsplit('.', 1)[-1]}-{value}" for key, value in values.items()).replace("/", "-")


def _edges(grid: Mapping[str, Sequence[Any]], best: Candidate) -> tuple[str, ...]:
    numbers = {
        key: values
        for key, values in grid.items()
        if len(values) > 1 and all(isinstance(v, (int, float)) for v in values)
    }
    return tuple(key for key, values in numbers.items() if best.values[key] in (min(values), max(values)))


def _plain(found: Tuning, held_out: float, seeds: int) -> dict[str, Any]:
    rows = [{"values": dict(c.values), "scores": c.scores, "mean": c.mean} for c in found.candidates]
    return {
        "config": found.config,
        "metric": found.metric,
        "held_out": held_out,
        "seeds": seeds,
        "best": dict(found.best.values),
        "candidates": rows,
    }


def _text(found: Tuning) -> str:
    lines = [f"{found.config}: {found.metric} on held-out training images, last epoch"]
    for candidate in found.candidates:
        mark = "  <- best" if candidate is found.best else ""
        setting = ", ".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in candidate.values.items())
        lines.append(f"  {setting:<32} {spread(candidate.scores)}{mark}")
    for key in found.at_the_edge:
        lines.append(f"  the best {key} is at the edge of what was tried: try values beyond {found.best.values[key]}")
    return "\n".join(lines)


def _listed(text: str) -> tuple[str, list[Any]]:
    key, values = parse_override(text)
    return key, list(values) if isinstance(values, (list, tuple)) else [values]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the search from the command line.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m limbeck_vision.tuning", description=__doc__)
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="files, or names that 'limbeck list' shows")
    parser.add_argument("--rates", nargs="+", type=float, metavar="R", help=f"learning rates to try ({RATE})")
    parser.add_argument("--grid", nargs="+", default=[], metavar="K=V,V", help="values of other keys; all combinations")
    parser.add_argument(
        "--held-out", type=float, default=0.25, metavar="N", help="images or share; 0: none (default: 0.25)"
    )
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="runs of each candidate (default: 2)")
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of every run (default: the config's)")
    parser.add_argument("--metric", metavar="NAME", help="what is judged (default: the evaluator's first)")
    parser.add_argument("--smaller-is-better", action="store_true", help="for errors and losses")
    parser.add_argument("--clean", nargs="+", default=[], metavar="K=V", help="arguments of the held-out data alone")
    parser.add_argument("--teacher", metavar="CONFIG", help="train this one first, without the held-out images")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/tuning"), metavar="D")
    parser.add_argument("--data-root", type=Path, metavar="D", help="folder of the data sets (default: $LIMBECK_DATA)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of PyTorch (default: 1)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="K=V", help="other values, for all runs")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        grid = {RATE: options.rates} if options.rates else {}
        grid |= dict(_listed(text) for text in options.grid)
        for config in options.configs:
            found = tune(
                config,
                grid,
                held_out=options.held_out,
                seeds=options.seeds,
                metric=options.metric,
                smaller_is_better=options.smaller_is_better,
                clean=dict(parse_override(text) for text in options.clean),
                teacher=options.teacher,
                work_dir=options.work_dir,
                data_root=options.data_root,
                overrides=dict(parse_override(text) for text in options.cfg_options) | _epochs(config, options.epochs),
            )
            print(_text(found), flush=True)
    except (LimbeckError, ValueError) as error:
        print(f"tuning: {error}", file=sys.stderr)
        return 2
    return 0


def _epochs(config: str, epochs: int | None) -> dict[str, Any]:
    """A shorter run, with a cosine over the whole run cut to its length."""
    if epochs is None:
        return {}
    changed: dict[str, Any] = {"train_cfg.max_epochs": epochs}
    schedule = load_config(config).get("param_scheduler")
    if isinstance(schedule, Mapping) and "T_max" in schedule:
        changed["param_scheduler.T_max"] = epochs
    return changed


if __name__ == "__main__":
    sys.exit(main())
