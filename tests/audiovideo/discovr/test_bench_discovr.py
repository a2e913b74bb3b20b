"""The benchmark of DISCOVR's losses runs and measures what it says."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from source_tree import ROOT


def test_everything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench = importlib.import_module("bench_discovr")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(bench, "peak_growth", bench.own_peak_growth)
    file = tmp_path / "discovr.json"
    assert bench.main(["--quick", "--json", str(file)]) == 0
    content = json.loads(file.read_text())
    names = [row["name"].partition(",")[0] for row in content["ratios"]]
    assert names == ["sinkhorn_assignment", "cluster_distillation_loss", "cluster_distillation_loss"]
    assert content["peaks"].keys() == {"limbeck", "plain"}
    assert "bar" not in capsys.readouterr().out, "tiny inputs judge nothing"
