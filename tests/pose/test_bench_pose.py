"""The benchmark of pose runs and measures what it says."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from source_tree import ROOT


def test_everything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench = importlib.import_module("bench_pose")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    file = tmp_path / "pose.json"
    assert bench.main(["--quick", "--json", str(file)]) == 0
    content = json.loads(file.read_text())
    assert [row["name"].partition(" ")[0].rstrip(",") for row in content["ratios"]] == [
        "SimCCDivergenceLoss", "SimCCTaskLoss", "SimCC.encode", "SimCC.decode",
    ]  # fmt: skip
    assert all(value > 0 for value in content["seconds"].values())
    assert "bar" not in capsys.readouterr().out, "tiny inputs judge nothing"
