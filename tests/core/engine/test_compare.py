"""Comparing configs: trained by the real engine on toys, done once, judged by samples and seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli_toys import CONFIG
from limbeck_core.cli import main
from limbeck_core.engine.compare import Arm, compare
from limbeck_core.engine.trial import RATE
from limbeck_core.engine.tuning import Search
from limbeck_core.errors import ConfigError


@pytest.fixture
def configs(tmp_path: Path) -> list[str]:
    (tmp_path / "slow.py").write_text(CONFIG.replace("lr=0.5", "lr=1e-6"), encoding="utf-8")
    (tmp_path / "fast.py").write_text(CONFIG, encoding="utf-8")
    return [str(tmp_path / "slow.py"), str(tmp_path / "fast.py")]


def _training_lines(folder: Path) -> int:
    return sum(path.read_text(encoding="utf-8").count("\n") for path in folder.glob("*/*/vis_data/scalars.json"))


def test_gain_is_seen_reported_and_not_trained_twice(
    configs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", *configs, "--seeds", "2", "--work-dir", str(tmp_path / "out")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "fast.py against" in printed
    assert "top1, last" in printed
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Comparison" in page
    runs = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))["runs"]
    assert [len(run["histories"]["top1"]) for run in runs.values()] == [2, 2]
    assert [len(run["last"]["top1"]) for run in runs.values()] == [2, 2]
    lines = _training_lines(tmp_path / "out")
    again = compare(configs, seeds=2, work_dir=tmp_path / "out")
    assert _training_lines(tmp_path / "out") == lines
    assert again.differences[configs[1]].mean > 0
    assert main(["report", *map(str, sorted((tmp_path / "out").glob("*-0"))), "--out", str(tmp_path / "page")]) == 0
    assert "loss/kd" in (tmp_path / "page" / "report.html").read_text(encoding="utf-8")


def test_changed_settings_are_trained_anew(configs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = compare(configs, seeds=1, work_dir=out)
    again = compare(configs, seeds=1, work_dir=out, overrides=["train_cfg.max_epochs=3"])
    assert [len(arm.histories("top1")[0]) for arm in first.contestants] == [2, 2]
    assert [len(arm.histories("top1")[0]) for arm in again.contestants] == [3, 3]


def test_each_arm_has_its_own_rate_chosen_on_held_out_samples(
    configs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--arm", "plain", configs[0], "model.matches.kd.weight=0.0", "--arm", "taught", configs[0]]
    more = ["--rates", "1e-6", "0.5", "--search-seeds", "1", "--held-out", "8", "--seeds", "1", "--threads", "1"]
    assert main(["compare", *words, *more, "--work-dir", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith(("plain", "taught "))][:2] == [
        ["plain", "0.5"],
        ["taught", "0.5"],
    ]
    found = json.loads((tmp_path / "out" / "search" / "taught" / "tuning.json").read_text())
    assert [row["values"] for row in found["candidates"]] == [{RATE: 1e-6}, {RATE: 0.5}]
    assert main(["compare", "--arm", "plain", "--rates", "0.1"]) == 2
    assert "--arm takes NAME CONFIG [K=V ...], got 'plain'" in capsys.readouterr().err


def test_a_config_with_a_test_set_of_its_own_is_judged_on_it(configs: list[str], tmp_path: Path) -> None:
    own = "test_dataloader = dict(batch_size=8, dataset=dict(type=Points, root='points', samples=64))\n"
    own += "test_cfg = dict()\ntest_evaluator = dict(type=Accuracy)\n"
    for config in configs:
        path = Path(config)
        path.write_text(path.read_text(encoding="utf-8") + own, encoding="utf-8")
    options = {"seeds": 1, "rates": [1e-6, 0.5], "search": Search(held_out=0, seeds=1), "work_dir": tmp_path / "out"}
    found = compare(configs, variants=["model.matches.kd.weight=0.5"], **options)
    assert [arm.name.rpartition("/")[2] for arm in found.contestants] == [
        "slow.py",
        "slow.py weight=0.5",
        "fast.py",
        "fast.py weight=0.5",
    ]
    first, variant = found.contestants[:2]
    assert first.trials[0].tested
    assert first.last("top1") == variant.last("top1")  # a loss weight does not move a test
    assert first.trials[0].histories["top1"][-1] != first.trials[0].tested["top1"]


def test_a_rate_is_not_chosen_on_what_judges(configs: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tests on its validation set, by which the rate would be chosen"):
        compare(configs, rates=[0.1, 0.2], search=Search(held_out=0), work_dir=tmp_path)


def test_the_teacher_of_the_search_may_be_another_one(
    configs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("limbeck_core.engine.compare.tune", lambda *_, **o: asked.append(o["overrides"]) or 1 / 0)
    arms = [Arm(configs[0], {"k": 1}, "a", {"model.teacher.checkpoint": "part.pth"}), Arm(configs[1])]
    with pytest.raises(ZeroDivisionError):
        compare(arms, rates=[0.1, 0.2], work_dir=tmp_path)
    assert asked == [{"k": 1, "model.teacher.checkpoint": "part.pth"}]


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["a.py"], {}, "two or more different configs"),
        (["a.py", "a.py"], {}, "two or more different configs"),
        ([], {}, "two or more different configs"),
        (["a.py", "b.py"], {"seeds": 0}, "one seed or more, got 0"),
        (["x/a", "x-a"], {}, "would write into one folder"),
    ],
)
def test_what_cannot_be_compared(names: list[str], options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compare(names, **options)
