"""The check of self-distillation's mechanism runs and measures what it says."""

from __future__ import annotations

import importlib

import pytest
import torch

from source_tree import ROOT


def test_both_arms_run_from_the_same_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    check = importlib.import_module("check_refinement")
    assert check.main(["--steps", "2", "--seeds", "0", "--images", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "seed 0, without ddf",
        "seed 0, with ddf",
        "mean of 1, without ddf",
        "mean of 1, with ddf",
    ]
    one, other = (check.detector(0, ddf_weight=weight).state_dict() for weight in (0.0, 1.5))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_layers_that_agree_do_not_diverge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    check = importlib.import_module("check_refinement")
    model, pictures = check.detector(0, ddf_weight=1.5), check.pictures(4, seed=3)
    found = check.judge(model, *pictures)
    assert found["divergence 0"] == pytest.approx(0, abs=1e-6)
    assert found["IoU first"] == pytest.approx(found["IoU last"], abs=0.05)
    torch.nn.init.normal_(model.refinement.corner_heads[-1].layers[-1].weight)
    assert check.judge(model, *pictures)["divergence 0"] > 1e-3
