"""The search trains on one part of the training images, judges by the other, and never reads the test images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limbeck_core.engine.config import load_config
from limbeck_core.errors import ConfigError
from limbeck_vision import tuning
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
    learnable = {"train_cfg.max_epochs": 4, "param_scheduler.T_max": 4, "train_dataloader.dataset.label_noise": 0.0}
    found = tuning.tune(
        "vision/digits/plain", {tuning.RATE: rates}, held_out=0.25, seeds=1, work_dir=tmp_path, overrides=learnable
    )
    assert found.best.values == {tuning.RATE: 0.1}
    assert found.metric == "top1"
    assert found.at_the_edge == (tuning.RATE,)
    written = json.loads((tmp_path / "vision-digits-plain" / "tuning.json").read_text())
    assert written["best"] == {tuning.RATE: 0.1}
    assert [row["values"][tuning.RATE] for row in written["candidates"]] == rates


def test_done_runs_are_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {tuning.RATE: [0.1]}
    first = tuning.tune("vision/digits/plain", grid, seeds=1, work_dir=tmp_path, overrides=SHORT)
    trained = []
    monkeypatch.setattr(tuning, "train", lambda *args, **kwargs: trained.append(kwargs))
    again = tuning.tune("vision/digits/plain", grid, seeds=1, work_dir=tmp_path, overrides=SHORT)
    assert (again, trained) == (first, [])
    with pytest.raises(Exception, match="logs"):  # other settings: trained anew, which this stub does not do
        tuning.tune("vision/digits/plain", grid, seeds=1, held_out=0.5, work_dir=tmp_path / "new", overrides=SHORT)
    assert len(trained) == 1


def test_the_parts_are_disjoint_and_judged_without_random_geometry() -> None:
    settings = load_config("vision/digits/kd")
    parts = tuning.held_out_parts(settings, 300, {"label_noise": 0.0})
    train, held_out = parts["train_dataloader.dataset"], parts["val_dataloader.dataset"]
    assert train["dataset"]["transform"]["type"].endswith("small_shifts")
    assert held_out["dataset"]["transform"] is None
    assert (train["dataset"]["label_noise"], held_out["dataset"]["label_noise"]) == (0.4, 0.0)
    assert {k: v for k, v in train.items() if k != "dataset"} == {
        "type": "limbeck_vision.data.subsets.HeldOut",
        "count": 300,
        "held_out": False,
    }
    assert held_out["held_out"] is True


def test_what_a_config_does_to_its_data_may_come_after_holding_out() -> None:
    settings = load_config("vision/digits/kd")
    settings.train_dataloader.dataset = {"type": "limbeck_vision.data.LongTailed", "dataset": {"type": "D", "noise": 1}}
    parts = tuning.held_out_parts(settings, 300, {"noise": 0}, inside=True)
    train, held_out = parts["train_dataloader.dataset"], parts["val_dataloader.dataset"]
    assert train["type"] == "limbeck_vision.data.LongTailed"
    assert (train["dataset"]["held_out"], train["dataset"]["dataset"]) == (False, {"type": "D", "noise": 1})
    assert (held_out["held_out"], held_out["dataset"]) == (True, {"type": "D", "noise": 0, "transform": None})


def test_a_teacher_is_trained_without_the_held_out_images(tmp_path: Path, no_test_images: None) -> None:
    asked = tuning._teacher("vision/digits/teacher", 0.99, tmp_path, None)
    assert asked.is_file()
    noted = json.loads((asked.parent / "tuned.json").read_text())["asked"]
    assert json.loads(noted)["train_dataloader.dataset"]["held_out"] is False


def test_all_combinations_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def run(config: object, folder: Path, seed: int, overrides: dict[str, object], metric: str | None) -> tuple:
        tried.append((overrides[tuning.RATE], overrides["model.task_weight"], seed))
        return "top1", float(overrides["model.task_weight"])  # type: ignore[arg-type]

    monkeypatch.setattr(tuning, "_run", run)
    grid = {tuning.RATE: [0.1, 0.2], "model.task_weight": [0.1, 0.5, 0.3]}
    found = tuning.tune("vision/digits/kd", grid, seeds=2, work_dir=tmp_path)
    assert tried == [(r, w, s) for r in (0.1, 0.2) for w in (0.1, 0.5, 0.3) for s in (0, 1)]
    assert found.best.values == {tuning.RATE: 0.1, "model.task_weight": 0.5}
    smallest = tuning.tune("vision/digits/kd", grid, seeds=1, work_dir=tmp_path, smaller_is_better=True)
    assert smallest.best.mean == 0.1


def test_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["vision/digits/plain", "--work-dir", str(tmp_path)]
    assert tuning.main(common) == 2
    assert "give --rates, or --grid KEY=VALUE,VALUE" in capsys.readouterr().err
    assert tuning.main([*common, "--rates", "0.1", "--clean", "label_nois=0"]) == 2
    assert "--clean label_nois changes nothing" in capsys.readouterr().err
    assert tuning.main([*common, "--rates", "0.1", "--held-out", "1200"]) == 2
    assert "count must leave samples in both parts of 1200, got 1200" in capsys.readouterr().err
    assert tuning.main([*common, "--rates", "0.1", "--metric", "top3", "--epochs", "1", "--seeds", "1"]) == 2
    assert "has no metric 'top3'; it has: top1" in capsys.readouterr().err


def test_seeds_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one seed or more, got 0"):
        tuning.tune("vision/digits/plain", {tuning.RATE: [0.1]}, seeds=0, work_dir=tmp_path)


def test_command_line_prints_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {0.05: 50.0, 0.1: 60.0, 0.2: 55.0}
    monkeypatch.setattr(tuning, "_run", lambda c, f, s, overrides, m: ("top1", scores[overrides[tuning.RATE]] + s))
    assert tuning.main(["vision/digits/plain", "--rates", "0.05", "0.1", "0.2", "--work-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "vision/digits/plain: top1 on held-out training images, last epoch" in printed
    assert [line.split()[0] for line in printed.splitlines() if "best" in line] == ["lr=0.1"]
    assert "edge" not in printed
