"""The benchmark of the core runs, measures what it says, and leaves no loss out in silence."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from limbeck_core import losses
from source_tree import ROOT


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("bench_core", ROOT / "tools" / "bench_core.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_core"] = module  # its dataclasses look for their module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench_core"]


def test_every_loss_has_a_plain_formula(bench: ModuleType) -> None:
    assert bench.without_case() == []
    assert bench.CASES.keys() == set(losses.__all__)


def test_losses_agree_with_their_formulas(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each comparison first holds both values against each other, and raises if they differ."""
    file = tmp_path / "ratios.json"
    assert bench.main(["--quick", "--pairs", "1", "--only", "losses", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert {row["name"] for row in report["results"]} == bench.CASES.keys()
    assert all(row["low"] <= row["ratio"] <= row["high"] for row in report["results"])
    assert (report["quick"], report["without_case"]) == (True, [])
    printed = capsys.readouterr().out
    assert all(name in printed for name in bench.CASES)
    assert "SLOWER" not in printed  # tiny inputs say nothing of speed


def test_steps_and_imports(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    assert bench.main(["--quick", "--only", "step"]) == 0
    assert bench.main(["--quick", "--only", "imports"]) == 0
    assert torch.get_num_threads() == threads
    printed = capsys.readouterr().out
    assert "Distiller in a loop by hand" in printed
    assert "engine, loading and hooks included" in printed
    assert "import limbeck_core.functional after torch" in printed
    assert printed.count("loads nothing heavy") == 3


def test_loss_without_formula_is_named(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(losses, "__all__", ["HintLoss", "NewLoss"])
    assert bench.main(["--quick", "--pairs", "1", "--only", "losses"]) == 1
    assert "NewLoss" in capsys.readouterr().out.splitlines()[-1]


def test_formula_of_another_loss_is_refused(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = bench.CASES["SquaredDistanceLoss"]
    monkeypatch.setitem(
        bench.CASES, "HintLoss", lambda s: bench.Case(losses.HintLoss(), wrong(s).plain, wrong(s).inputs)
    )
    with pytest.raises(RuntimeError, match="HintLoss and its plain formula differ"):
        bench.bench_loss("HintLoss", 1, True)


def test_unknown_loss(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--losses", "KDLoss"])
    assert "no benchmark is called KDLoss" in capsys.readouterr().err


def test_ratio_of_twice_the_work_is_two(bench: ModuleType) -> None:
    def work(amount: int) -> None:
        for _ in range(amount):
            sum(range(2000))

    row = bench.summary("loss", "work", bench.interleaved(lambda: work(20), lambda: work(10), 9, 0.002))
    assert row.low > 1.5
    assert row.high < 2.7
    assert row.pairs == 9
