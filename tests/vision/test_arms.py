"""Each arm is tuned without the test images, tested with every seed, and compared with the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limbeck_core.errors import ConfigError
from limbeck_vision import arms

SHORT = {"train_cfg.max_epochs": 1, "param_scheduler.T_max": 1}


def test_arms_are_tuned_and_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = [
        arms.Arm("a", "vision/digits/plain", SHORT),
        arms.Arm("b", "vision/digits/plain", {**SHORT, "train_dataloader.dataset.label_noise": 0.0}),
    ]
    found = arms.run_arms(chosen, rates=[1e-6, 0.1], seeds=2, held_out=300, metric="nll", work_dir=tmp_path)
    assert [outcome.arm.name for outcome in found] == ["a", "b"]
    assert all(len(outcome.outcomes) == 2 and len(outcome.outcomes[0]) == 597 for outcome in found)
    assert found[0].difference is None
    expected = sum(found[1].accuracies) / 2 - sum(found[0].accuracies) / 2
    assert found[1].difference is not None
    assert found[1].difference.mean == pytest.approx(expected)
    assert found[1].accuracies == pytest.approx([run["top1"] for run in found[1].metrics])
    printed = capsys.readouterr().out
    assert "a: " in printed
    assert "against the first" in printed


def test_one_rate_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing to tune")

    monkeypatch.setattr(arms, "tune", refuse)
    words = ["--arm", "a", "vision/digits/plain", *(f"{k}={v}" for k, v in SHORT.items())]
    assert arms.main([*words, "--rates", "0.1", "--seeds", "1", "--work-dir", str(tmp_path)]) == 0


def test_the_teacher_of_the_search_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(arms, "tune", lambda *_, **options: asked.append(options["overrides"]) or 1 / 0)
    arm = arms.Arm("a", "vision/digits/kd", {"k": 1}, {"model.teacher.checkpoint": "part.pth"})
    with pytest.raises(ZeroDivisionError):
        arms.run_arms([arm], rates=[0.1, 0.2], work_dir=tmp_path)
    assert asked == [{"k": 1, "model.teacher.checkpoint": "part.pth"}]


def test_what_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="different names"):
        arms.run_arms([arms.Arm("a", "x"), arms.Arm("a", "x")], rates=[0.1])
    assert arms.main(["--arm", "a", "--rates", "0.1"]) == 2
    assert "NAME CONFIG" in capsys.readouterr().err
