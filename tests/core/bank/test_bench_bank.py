"""The benchmark of the bank runs and measures what it says."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from source_tree import ROOT


def test_every_part_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench = importlib.import_module("bench_bank")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    file = tmp_path / "rows.json"
    assert bench.main(["--quick", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert {row["group"] for row in rows} == set(bench.PARTS)
    steps = [row for row in rows if row["group"] == "step"]
    assert all(row["ratio"] > 1 for row in steps), "a teacher that does not run costs nothing"
    assert all(row["bytes"] >= row["limit"] for row in rows if row["group"] == "bytes")
    assert "meets" not in capsys.readouterr().out, "tiny inputs judge nothing"
    with pytest.raises(SystemExit):
        bench.main(["--only", "steps"])
