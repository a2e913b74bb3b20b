"""The quickstart on simulated frames runs and writes its page; its sentence says what the numbers say."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_detection.quickstart_pointcloud import DISTILLED, PLAIN, SHUFFLED, Trained, main, verdict


def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--smoke", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert all(kind in said for kind in (PLAIN, DISTILLED, SHUFFLED))
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 1
    assert (tmp_path / "out" / "pictures" / "scenes.png").is_file()
    assert len(list((tmp_path / "out" / "frames" / "training" / "velodyne").iterdir())) == 8


def test_the_sentence_counts_seeds_and_keeps_the_sign() -> None:
    means = {PLAIN: [50.0, 60.0], DISTILLED: [52.0, 55.0], SHUFFLED: [49.0, 54.0]}
    found = {kind: Trained(results=[{"mean": value} for value in values]) for kind, values in means.items()}
    assert verdict(found) == (
        "PointDistiller in mean AP from above: -1.5 points against plain student (4x) (better in 1 of 2 seeds) and "
        "+2.0 points against shuffled (control) (better in 2 of 2 seeds)"
    )
