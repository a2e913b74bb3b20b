"""The quickstart runs end to end through the installed configs and writes a page that holds what it printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limbeck_core.engine.config import load_config
from limbeck_core.engine.quickstart import claim
from limbeck_vision import quickstart, quickstart_parts


def test_smoke_run_prints_the_table_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(2)
    try:
        assert quickstart.main(["--smoke", "--out", str(tmp_path / "q")]) == 0
        assert torch.get_num_threads() == 2, "the caller's threads are not ours to keep"
    finally:
        torch.set_num_threads(1)
    printed = capsys.readouterr().out
    for words in (
        "student alone",
        "student distilled",
        "teacher",
        "accuracy (%)",
        "from an untrained teacher",
        "5,214",
        "78,042",
        "report:",
    ):
        assert words in printed
    page = (tmp_path / "q" / "report.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 3
    assert "student distilled" in page
    assert {"accuracy.png", "reliability.png", "risk_coverage.png"} <= {p.name for p in (tmp_path / "q").iterdir()}
    assert "40 % of the training images bear a wrong label" in page
    claim(tmp_path / "q")  # its own folder may be written again


def test_foreign_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose me")
    assert quickstart.main(["--smoke", "--out", str(tmp_path)]) == 2
    assert "holds something that no quickstart wrote" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_file_in_the_way_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("a file")
    assert quickstart.main(["--smoke", "--out", str(tmp_path / "out")]) == 2
    assert "is a file, and the runs need a folder: choose another one with --out" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "a file"


def test_untrained_teacher_differs_from_the_trained_and_between_seeds(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    first, second = (
        torch.load(quickstart_parts.untrained_teacher(tmp_path / f"{seed}.pth", seed), weights_only=True)
        for seed in (0, 1)
    )
    assert not torch.equal(first["fc.weight"], second["fc.weight"])
    assert torch.equal(torch.get_rng_state(), before), "drawing the control leaves the run's own numbers alone"


def test_students_differ_in_what_the_page_says_and_nothing_else() -> None:
    plain, kd = (load_config(quickstart.CONFIGS[kind]) for kind in (quickstart.PLAIN, quickstart.DISTILLED))
    for part in ("train_dataloader", "val_dataloader", "train_cfg", "param_scheduler"):
        assert plain[part].to_dict() == kd[part].to_dict(), part
    assert plain.model.student.to_dict() == kd.model.student.to_dict()
    plain_step, kd_step = (dict(config.optim_wrapper.optimizer) for config in (plain, kd))
    assert (plain_step.pop("lr"), kd_step.pop("lr")) == (0.1, 0.4)
    assert plain_step == kd_step


def test_seeds_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quickstart.main(["--seeds", "0"])
    assert "--seeds must be 1 or more, got 0" in capsys.readouterr().err
