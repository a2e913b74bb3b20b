"""The audio quickstart from end to end, a few steps each."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_audiovideo.quickstart_audio import main


def test_a_short_run_of_each_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--smoke", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "ATST-Clip, probe" in shown
    assert "ATST-Clip, probe against random weights, probe: " in shown
    page = (tmp_path / "out" / "report.html").read_text()
    assert "labels only, all weights" in page
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"views.png", "confusion.png"}


def test_digits_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--smoke", "--out", str(tmp_path / "out"), "--data-root", str(tmp_path)]) == 2
    assert "<digit>_<speaker>_<take>.wav" in capsys.readouterr().err
