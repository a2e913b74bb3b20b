"""The benchmark against transformers runs, and both sides of it are the same detector."""

from __future__ import annotations

import importlib

import pytest
import torch

from source_tree import ROOT


def test_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench = importlib.import_module("bench_detection")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    assert bench.main(["--quick", "--pairs", "1", "--only", "inference", "losses", "evaluation"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["COCO evaluation", "inference", "losses"]
