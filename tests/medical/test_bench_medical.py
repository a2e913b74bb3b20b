"""The benchmark of DSD runs and measures what it says."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from source_tree import ROOT


def test_every_comparison_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench = importlib.import_module("bench_medical")
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    file = tmp_path / "steps.json"
    assert bench.main(["--quick", "--pairs", "1", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert [row["name"].partition(":")[0] for row in rows] == list(bench.NAMES)
    kept = [[float(part) for part in row["note"].split() if part[0].isdigit()] for row in rows[:2]]
    assert all(ours > plain for ours, plain in kept), "maps of scores for eight heads are kept"
    assert "bar" not in capsys.readouterr().out, "tiny inputs judge nothing"
    with pytest.raises(SystemExit):
        bench.main(["--only", "nnunet"])


def test_a_bar_is_judged_by_the_lower_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench = importlib.import_module("bench_medical")
    assert bench.verdict(bench.Ratio("step", "unet", 1.12, 1.08, 1.2, 30), quick=False) == "ok"
    slow = bench.Ratio("step", "unet", 1.2, 1.15, 1.3, 30)
    assert bench.verdict(slow, quick=False) == "SLOWER than the bar 1.1"
    assert bench.verdict(slow, quick=True) == ""


def test_the_plain_divergence_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    bench = importlib.import_module("bench_medical")
    student, teacher = torch.randn(2, 1, 4, 3, 3, 3)
    ours = bench.self_distillation_loss(student, teacher, temperature=bench.TEMPERATURE)
    torch.testing.assert_close(bench.plain_divergence(student, teacher), ours)
