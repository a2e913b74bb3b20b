"""The quickstart of inertial sensors runs, and says what it measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_audiovideo.quickstart_imu import main


@pytest.mark.filterwarnings("ignore:.*")
def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--smoke", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    for kind in ("random initialisation", "shuffled pairs (control)", "COMODO", "labels from scratch"):
        assert kind in printed
    assert "interval" in printed
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "people whom no training saw" in page.replace("\n", " ")
