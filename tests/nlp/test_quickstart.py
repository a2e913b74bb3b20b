"""The quickstart runs from end to end and writes its page."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_nlp.quickstart import DISTILLED, PLAIN, TEACHER, UNTRAINED, main


def test_the_smoke_run_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["--smoke", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(f"{kind}, seed 0" in printed for kind in (TEACHER, PLAIN, DISTILLED, UNTRAINED))
    assert "distilled against alone" in printed
    pages = list(out.glob("*.html"))
    assert len(pages) == 1
    page = pages[0].read_text(encoding="utf-8")
    assert all(said in page for said in ("sizes were chosen because distillation helped", "edge of that grid"))


def test_foreign_folders_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("x", encoding="utf-8")
    assert main(["--smoke", "--out", str(tmp_path)]) == 2
    assert "holds something that no quickstart wrote" in capsys.readouterr().err
