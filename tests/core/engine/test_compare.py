"""Comparing configs: trained by the real engine on toys, done once, judged by samples and seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli_toys import CONFIG
from limbeck_core.cli import main
from limbeck_core.engine.compare import compare
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
    lines = _training_lines(tmp_path / "out")
    again = compare(configs, seeds=2, work_dir=tmp_path / "out")
    assert _training_lines(tmp_path / "out") == lines
    assert again.differences[configs[1]].mean > 0
    assert main(["report", *map(str, sorted((tmp_path / "out").glob("*-0"))), "--out", str(tmp_path / "page")]) == 0
    assert "loss/kd" in (tmp_path / "page" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["a.py"], {}, "two or more different configs"),
        (["a.py", "a.py"], {}, "two or more different configs"),
        (["a.py", "b.py"], {"seeds": 0}, "one seed or more, got 0"),
    ],
)
def test_what_cannot_be_compared(names: list[str], options: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compare(names, **options)
