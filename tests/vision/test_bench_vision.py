"""The benchmark of vision's methods runs and measures what it says."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from source_tree import ROOT


def test_every_method_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench = importlib.import_module("bench_vision")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    file = tmp_path / "steps.json"
    assert bench.main(["--quick", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert [row["name"].partition(" ")[0] for row in rows] == list(bench.METHODS)
    assert rows[-1]["ratio"] > 2, "four times the images cost something"
    assert "bar" not in capsys.readouterr().out, "tiny inputs judge nothing"
    with pytest.raises(SystemExit):
        bench.main(["--only", "pskd"])


def test_a_bar_is_judged_by_the_lower_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench = importlib.import_module("bench_vision")
    row = bench.Ratio("step", "ps_kd", 1.05, 1.02, 1.08, 30)
    assert bench.verdict(row, "ps_kd", quick=False) == "ok"
    slow = bench.Ratio("step", "ps_kd", 1.05, 1.04, 1.08, 30)
    assert bench.verdict(slow, "ps_kd", quick=False) == "SLOWER than the bar 1.03"
    assert bench.verdict(slow, "lsskd", quick=False) == ""
