"""The quickstart at its smallest: every stage runs, and the page says what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_medical import quickstart


def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert quickstart.main(["--smoke", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(f"{kind}, seed 0: Dice" in printed for kind in quickstart.CONFIGS)
    assert "DSD against deep supervision:" in printed
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "dsd/encoder_teacher_std" in page
    assert page.count("data:image/png;base64,") == 3
    assert len(list((out / "unet_dsd-0" / "predictions").glob("*.nii.gz"))) == 2


def test_folders_of_others_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").touch()
    assert quickstart.main(["--smoke", "--out", str(tmp_path)]) == 2
    assert "holds something that no quickstart wrote" in capsys.readouterr().err
