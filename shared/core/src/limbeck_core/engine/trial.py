"""One run of an experiment: a config with some values changed, trained once, and what came of it written down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limbeck_core.engine.checkpoints import write_atomic
from limbeck_core.engine.commands import build_test_runner, train
from limbeck_core.engine.config import dump_config, load_config
from limbeck_core.errors import ConfigError
from limbeck_core.report.runs import read_run

RATE = "optim_wrapper.optimizer.lr"
_NOTE = "trial.json"


@dataclass(frozen=True)
class Trial:
    """What came of one run.

    Args:
        histories: For each validation metric, its values over the validations.
        tested: Test metrics of the last weights, where the config's test set is another one than its validation set.
        outcomes: For each metric that the evaluator gives per sample, the values: of the test if there was one, else of
            the last validation.
    """

    histories: Mapping[str, Sequence[float]]
    tested: Mapping[str, float]
    outcomes: Mapping[str, Sequence[float]]

    @property
    def last(self) -> dict[str, float]:
        """The metrics that count: of the test if there was one, else of the last validation."""
        return dict(self.tested) or {name: values[-1] for name, values in self.histories.items()}


def folder_name(config: str | Path) -> str:
    """Return what a config's runs are called: the stem of a file, or an installed name with dashes."""
    return Path(config).stem if Path(config).is_file() else str(config).replace("/", "-")


def has_own_test(settings: Any) -> bool:
    """Whether a config tests on other data than it validates on."""
    tested = settings.get("test_dataloader")
    return tested is not None and tested != settings.get("val_dataloader")


def run_trial(
    config: str | Path,
    folder: Path,
    *,
    seed: int,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    data_root: str | Path | None = None,
    test: bool = False,
) -> Trial:
    """Train a config with one seed, or read what came of it if that was done before with the same settings.

    A run that was interrupted goes on where it stood. Settings are compared whole, as ``limbeck show`` prints them; a
    teacher's file is known by its path only.

    Args:
        config: A path, or the name of an installed config.
        folder: Where the run stands; ``trial.json`` in it says what came of it.
        seed: Of everything random.
        overrides: See :func:`~limbeck_core.engine.config.load_config`.
        data_root: See :func:`~limbeck_core.engine.config.load_config`.
        test: Test the last weights, if the config has a test set other than its validation set.

    Returns:
        What came of it.

    Raises:
        ConfigError: if the config does not fit or validates nothing.
    """
    settings = load_config(config, overrides=overrides, data_root=data_root)
    test = test and has_own_test(settings)
    text = f"{dump_config(settings)}\nseed {seed}"
    asked = hashlib.sha256(text.encode()).hexdigest()
    note = folder / _NOTE
    known = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    begun = known.get("asked") == asked
    done = known.get("done") if begun else None
    if done is None or (test and not done["tested"]):
        write_atomic(note, json.dumps({"asked": asked}))
        common: dict[str, Any] = {"overrides": overrides, "data_root": data_root}
        runner = train(config, work_dir=folder, resume=begun, seed=seed, **common)
        log = read_run(folder)
        histories = {name: log.history(name) for name in log.validation if not name.startswith("teacher/")}
        if not histories:
            raise ConfigError(f"{config} validates nothing, so there is nothing to judge: give it a val_evaluator")
        judges, tested = runner.val_evaluator.metrics, {}
        if test:
            runner = build_test_runner(config, folder / "student.pth", work_dir=folder / "test", **common)
            values = runner.test()
            tested = {name: float(value) for name, value in values.items() if not name.startswith("teacher/")}
            judges = runner.test_evaluator.metrics
        outcomes = {
            name: [float(value) for value in values]
            for judge in judges
            for name, values in getattr(judge, "per_sample", {}).items()
        }
        trial = Trial(histories, tested, outcomes)
        write_atomic(note, json.dumps({"asked": asked, "done": asdict(trial)}))
        return trial
    return Trial(**done)
