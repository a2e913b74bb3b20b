"""The benchmark of batches against loops runs, and both sides of it compute the same."""

from __future__ import annotations

import importlib

import pytest
import torch

from source_tree import ROOT


def test_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench = importlib.import_module("bench_batched")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    assert bench.main(["--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("'s")[0] for line in lines[1:]] == ["SLA", "MDCS"]


def test_experts_in_a_loop_are_the_same_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench = importlib.import_module("bench_batched")
    _, batched, looped = bench.experts(8, 4)
    torch.testing.assert_close(batched(), looped())
