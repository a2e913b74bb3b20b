"""The benchmark of point clouds runs on values that both sides share, and judges by the lower end."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from source_tree import ROOT


def test_every_part_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench = importlib.import_module("bench_pointcloud")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    file = tmp_path / "points.json"
    assert bench.main(["--quick", "--json", str(file)]) == 0
    assert [row["name"] for row in json.loads(file.read_text())] == list(bench.PARTS)
    assert "bar" not in capsys.readouterr().out, "tiny inputs judge nothing"
    with pytest.raises(SystemExit):
        bench.main(["--only", "voxels"])
    slow = bench.Ratio("part", "knn", 1.05, 1.04, 1.08, 30)
    assert bench.verdict(slow, quick=False) == "SLOWER than the bar 1"
    assert bench.verdict(bench.Ratio("part", "knn", 1.05, 0.99, 1.08, 30), quick=False) == "ok"
