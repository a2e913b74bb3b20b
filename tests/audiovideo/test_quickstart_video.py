"""The quickstart runs end to end through the installed configs and writes a page that holds what it printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_audiovideo import quickstart_video
from limbeck_audiovideo.quickstart_video import CONFIGS, UNTRAINED_IMAGE


def test_smoke_run_prints_the_table_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quickstart_video.main(["--smoke", "--out", str(tmp_path / "q")]) == 0
    printed = capsys.readouterr().out
    page = (tmp_path / "q" / "report.html").read_text(encoding="utf-8")
    for words in (*CONFIGS, UNTRAINED_IMAGE):
        assert words in printed
        assert words in page
    assert "motion, kNN" in printed
    assert page.count("<figure") == 1
    assert (tmp_path / "q" / "hearts" / "FileList.csv").is_file()
    assert (tmp_path / "q" / "DISCOVR-0" / "student.pth").is_file()
