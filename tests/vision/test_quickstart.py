"""The quickstart runs end to end through the installed configs and writes a page that holds what it printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_vision import quickstart


def test_smoke_run_prints_the_table_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quickstart.main(["--smoke", "--out", str(tmp_path / "q")]) == 0
    printed = capsys.readouterr().out
    for words in ("student alone", "student distilled", "teacher", "accuracy (%)", "1,420", "78,042", "report:"):
        assert words in printed
    page = (tmp_path / "q" / "report.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 3
    assert "student distilled" in page
    assert {"accuracy.png", "reliability.png", "risk_coverage.png"} <= {p.name for p in (tmp_path / "q").iterdir()}
    quickstart._claim(tmp_path / "q")  # its own folder may be written again


def test_foreign_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose me")
    assert quickstart.main(["--smoke", "--out", str(tmp_path)]) == 2
    assert "holds something that no quickstart wrote" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_seeds_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quickstart.main(["--seeds", "0"])
    assert "--seeds must be 1 or more, got 0" in capsys.readouterr().err
