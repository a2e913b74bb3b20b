"""Logs of work folders: several attempts are one run, a line cut off by a kill is passed over, other damage is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limbeck_core.errors import DataError
from limbeck_core.report.runs import read_run, report_runs


def write(folder: Path, time: str, *entries: dict[str, float], tail: str = "") -> None:
    path = folder / time / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(map(json.dumps, entries)) + "\n" + tail, encoding="utf-8")


def test_the_last_attempt_at_a_step_counts(tmp_path: Path) -> None:
    write(tmp_path, "1", {"lr": 0.1, "loss": 3.0, "step": 1}, {"top1": 50.0, "step": 1}, tail='{"top1": 5')
    write(tmp_path, "2", {"top1": 51.0, "step": 1}, {"top1": 60.0, "step": 2})
    log = read_run(tmp_path)
    assert log.history("top1") == [51.0, 60.0]
    assert log.training["loss"] == {1: 3.0}


def test_unknown_metric_offers_the_closest(tmp_path: Path) -> None:
    write(tmp_path, "1", {"top1": 50.0, "step": 1})
    with pytest.raises(DataError, match="no metric 'top2': did you mean 'top1'"):
        read_run(tmp_path).history("top2")


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    write(tmp_path, "1", {"top1": 50.0, "step": 1}, tail='{"top1": 5\n{"top1": 6.0, "step": 3}\n')
    with pytest.raises(DataError, match=r"line 2 of .*scalars\.json is damaged"):
        read_run(tmp_path)


def test_folder_without_logs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no logs"):
        report_runs([tmp_path], tmp_path)
