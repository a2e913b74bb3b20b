"""The benchmark of the audio front end and of ATST's step runs, and both sides of a pair give the same numbers."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from source_tree import ROOT


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("bench_audiovideo")


def test_everything_runs(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--quick", "--json", str(tmp_path / "r.json")]) == 0
    content = json.loads((tmp_path / "r.json").read_text())
    assert [row["group"] for row in content["ratios"]] == ["front_end", "views", "step"]
    assert content["real_time"] > 1
    assert "times real time" in capsys.readouterr().out


def test_a_step_by_hand_is_ours_but_for_batch_norm(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours, by_hand = bench.step(4, 1.0)
    # batch norm sees both views together in one pass and one by one by hand: the losses agree to what that changes
    torch.testing.assert_close(ours(), by_hand(), atol=0.1, rtol=0)
