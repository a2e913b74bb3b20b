"""What the quickstarts share: the command line, the folder, the table."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from limbeck_core.engine.quickstart import MARKER, claim, command, text_table
from limbeck_core.errors import LimbeckError


def test_options_reach_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[argparse.Namespace] = []

    def work(options: argparse.Namespace) -> Path:
        seen.append(options)
        assert torch.get_num_threads() == 1
        return options.out / "index.html"

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--cases", type=int, default=7)

    out = tmp_path / "runs"
    assert command("try", "Tries.", work, ["--out", str(out), "--seeds", "5", "--cases", "2"], options=add) == 0
    assert command("try", "Tries.", work, ["--out", str(out), "--seeds", "5", "--smoke"], options=add) == 0
    assert [(o.seeds, o.smoke, o.cases) for o in seen] == [(5, False, 2), (1, True, 7)]
    assert f"report: {out / 'index.html'}" in capsys.readouterr().out


def test_errors_and_interruption_have_their_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(options: argparse.Namespace) -> Path:
        raise LimbeckError("the data are gone")

    def stops(options: argparse.Namespace) -> Path:
        raise KeyboardInterrupt

    assert command("try", "Tries.", fails, ["--out", str(tmp_path / "a")]) == 2
    assert command("try", "Tries.", stops, ["--out", str(tmp_path / "b")]) == 130
    assert "try: the data are gone" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command("try", "Tries.", stops, ["--seeds", "0"])
    assert "--seeds must be 1 or more, got 0" in capsys.readouterr().err


def test_only_own_folders_are_written_again(tmp_path: Path) -> None:
    claim(tmp_path / "new")
    assert (tmp_path / "new" / MARKER).is_file()
    claim(tmp_path / "new")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    with pytest.raises(
        LimbeckError, match="holds something that no quickstart wrote: choose another folder with --out"
    ):
        claim(tmp_path / "photos")
    with pytest.raises(LimbeckError, match="is a file, and the runs need a folder"):
        claim(tmp_path / "photos" / "one.jpg")


def test_tables_are_as_wide_as_they_need() -> None:
    assert text_table(("model", "top1"), [("teacher", 9.5), ("a", "10")]).splitlines() == [
        "  model  top1",
        "teacher   9.5",
        "      a    10",
    ]
