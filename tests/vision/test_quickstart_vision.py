"""Five methods side by side: the table, the verdicts and the page; and that the arms differ in their method alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limbeck_core.cli import main
from limbeck_core.engine import tuning
from limbeck_core.engine.config import load_config
from limbeck_core.engine.trial import RATE, Trial
from limbeck_vision import quickstart_parts, quickstart_vision


def test_smoke_run_prints_the_table_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quickstart_vision.main(["--smoke", "--out", str(tmp_path / "q")]) == 0
    printed = capsys.readouterr().out
    titles = [title for title, _, _ in quickstart_vision.METHODS]
    table = [line for line in printed.splitlines() if "5,214" in line]
    assert [line.split("  ")[0].strip() or line.split()[0] for line in table] == titles
    assert printed.count(f"against {quickstart_vision.PLAIN}: ") == 4
    page = (tmp_path / "q" / "report.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 3
    assert "40 % of the training images bear a wrong label" in page
    assert "limbeck tune vision/digits/plain" in page
    assert {"accuracy.png", "reliability.png", "risk_coverage.png"} <= {p.name for p in (tmp_path / "q").iterdir()}


def test_foreign_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose me")
    assert quickstart_vision.main(["--smoke", "--out", str(tmp_path)]) == 2
    assert "quickstart-vision: " in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_arms_differ_in_method_and_learning_rate_alone() -> None:
    configs = [load_config(config) for _, config, _ in quickstart_vision.METHODS]
    first = configs[0]
    for config in configs:
        for part in ("train_dataloader", "val_dataloader", "train_cfg", "param_scheduler"):
            assert config[part].to_dict() == first[part].to_dict(), part
        assert config.model.student.to_dict() == first.model.student.to_dict()
        optimizer = dict(config.optim_wrapper.optimizer)
        assert optimizer.pop("lr") in quickstart_vision.RATES
        assert optimizer == {k: v for k, v in first.optim_wrapper.optimizer.items() if k != "lr"}


def test_taught_methods_name_a_teachers_file_and_the_others_do_not() -> None:
    for _, config, taught in quickstart_vision.METHODS:
        teacher = load_config(config).model.get("teacher") or {}
        assert ("checkpoint" in teacher) == taught


def test_the_search_on_the_page_is_one_that_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def run(config: str, folder: Path, *, seed: int, overrides: dict[str, object], **_: object) -> Trial:
        asked.append((config, overrides.get(RATE), json.dumps(overrides["val_dataloader.dataset"], default=str)))
        return Trial({"top1": [0.0]}, {}, {})

    monkeypatch.setattr(tuning, "run_trial", run)
    command, *words = quickstart_vision.SEARCH.replace("\\\n", " ").split()
    assert command == "limbeck"
    assert main([*words, "--work-dir", str(tmp_path)]) == 0
    students = {config for config, rate, _ in asked if rate is not None}
    assert students == {config for _, config, _ in quickstart_vision.METHODS}
    assert {rate for _, rate, _ in asked if rate is not None} == set(quickstart_vision.RATES)
    assert all('"held_out": true' in dataset for _, _, dataset in asked)
    assert quickstart_parts.TEACHER_CONFIG in {config for config, rate, _ in asked if rate is None}
