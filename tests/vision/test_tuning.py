"""The search of core on digits: it trains on one part of the training images and never reads the test images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limbeck_core.cli import main
from limbeck_core.engine import tuning
from limbeck_core.engine.config import load_config
from limbeck_core.engine.held_out import hold_out
from limbeck_core.engine.trial import RATE, Trial
from limbeck_core.engine.tuning import Search, tune
from limbeck_core.errors import ConfigError
from limbeck_vision.data import Digits

SHORT = {"train_cfg.max_epochs": 1, "param_scheduler.T_max": 1}


@pytest.fixture
def no_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for the test part fails."""
    original = Digits.__init__

    def refuse(self: Digits, train: bool = True, **others: object) -> None:
        assert train, "the search asked for test images"
        original(self, train, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(Digits, "__init__", refuse)


def test_the_rate_that_learns_wins_without_the_test_images(tmp_path: Path, no_test_images: None) -> None:
    rates = [1e-6, 0.1]
    clean = {"train_dataloader.dataset.label_noise": 0.0}
    search = Search(held_out=0.25, seeds=1, epochs=4)
    found = tune("vision/digits/plain", {RATE: rates}, search=search, work_dir=tmp_path, overrides=clean)
    assert found.best.values == {RATE: 0.1}
    assert found.metric == "top1"
    assert found.at_the_edge == (RATE,)
    written = json.loads((tmp_path / "vision-digits-plain" / "tuning.json").read_text())
    assert written["best"] == {RATE: 0.1}
    assert [row["values"][RATE] for row in written["candidates"]] == rates


def test_done_runs_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search(seeds=1, epochs=1)
    first = tune("vision/digits/plain", {RATE: [0.1]}, search=search, work_dir=tmp_path)
    trained = []
    monkeypatch.setattr("limbeck_core.engine.trial.train", lambda *args, **kwargs: trained.append(kwargs))
    again = tune("vision/digits/plain", {RATE: [0.1]}, search=search, work_dir=tmp_path)
    assert (again, trained) == (first, [])
    other = Search(seeds=1, epochs=1, held_out=0.5)
    with pytest.raises(Exception, match="logs"):  # other settings: trained anew, which this stub does not do
        tune("vision/digits/plain", {RATE: [0.1]}, search=other, work_dir=tmp_path / "new")
    assert len(trained) == 1


def test_the_parts_are_judged_without_random_geometry() -> None:
    settings = load_config("vision/digits/kd")
    parts = hold_out(settings, 300, {"label_noise": 0.0})
    train, held_out = parts["train_dataloader.dataset"], parts["val_dataloader.dataset"]
    assert train["dataset"]["transform"]["type"].endswith("small_shifts")
    assert "transform" not in held_out["dataset"]
    assert (train["dataset"]["label_noise"], held_out["dataset"]["label_noise"]) == (0.4, 0.0)


def test_a_teacher_is_trained_without_the_held_out_images(
    tmp_path: Path, no_test_images: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = tuning.run_trial
    monkeypatch.setattr(tuning, "run_trial", lambda *a, **k: asked.append(k["overrides"]) or original(*a, **k))
    search = Search(held_out=0.97, seeds=1, epochs=1, teacher="vision/digits/teacher")
    tune("vision/digits/kd", {RATE: [0.1]}, search=search, work_dir=tmp_path)
    taught, student = asked
    assert taught["train_dataloader.dataset"]["held_out"] is False
    assert Path(student["model.teacher.checkpoint"]).is_file()


def test_all_combinations_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def run(config: object, folder: Path, *, seed: int, overrides: dict[str, object], **_: object) -> Trial:
        tried.append((overrides[RATE], overrides["model.task_weight"], seed))
        return Trial({"top1": [float(overrides["model.task_weight"])]}, {}, {})  # type: ignore[arg-type]

    monkeypatch.setattr(tuning, "run_trial", run)
    grid = {RATE: [0.1, 0.2], "model.task_weight": [0.1, 0.5, 0.3]}
    found = tune("vision/digits/kd", grid, work_dir=tmp_path)
    assert tried == [(r, w, s) for r in (0.1, 0.2) for w in (0.1, 0.5, 0.3) for s in (0, 1)]
    assert found.best.values == {RATE: 0.1, "model.task_weight": 0.5}
    smallest = tune("vision/digits/kd", grid, search=Search(smaller_is_better=True), work_dir=tmp_path)
    assert smallest.best.mean == 0.1


def test_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["tune", "vision/digits/plain", "--work-dir", str(tmp_path)]
    assert main(common) == 2
    assert "give --rates, or --grid KEY=VALUE,VALUE" in capsys.readouterr().err
    assert main([*common, "--rates", "0.1", "--clean", "label_nois=0"]) == 2
    assert "clean 'label_nois' changes nothing" in capsys.readouterr().err
    assert main([*common, "--rates", "0.1", "--held-out", "1200"]) == 2
    assert "count must leave samples in both parts of 1200, got 1200" in capsys.readouterr().err
    assert main([*common, "--rates", "0.1", "--metric", "top3", "--epochs", "1", "--seeds", "1"]) == 2
    assert "has no metric 'top3'; it has: top1" in capsys.readouterr().err


def test_seeds_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="one seed or more, got 0"):
        Search(seeds=0)


def test_command_line_prints_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {0.05: 50.0, 0.1: 60.0, 0.2: 55.0}

    def run(config: object, folder: Path, *, seed: int, overrides: dict[str, float], **_: object) -> Trial:
        return Trial({"top1": [scores[overrides[RATE]] + seed]}, {}, {})

    monkeypatch.setattr(tuning, "run_trial", run)
    words = ["tune", "vision/digits/plain", "--rates", "0.05", "0.1", "0.2", "--work-dir", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "vision/digits/plain: top1 on held-out training samples, last epoch" in printed
    assert [line.split()[0] for line in printed.splitlines() if "best" in line] == ["lr=0.1"]
    assert "edge" not in printed
