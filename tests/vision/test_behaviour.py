"""The comparison on test images: rates come from validation images, variants judge the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck_core.engine.config import dump_config, load_config
from limbeck_core.errors import ConfigError
from limbeck_vision import behaviour
from limbeck_vision.behaviour import Outcome, judge, table


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "short.py"
    short = {"train_cfg.max_epochs": 1, "param_scheduler.T_max": 1}
    path.write_text(dump_config(load_config("vision/sla/digits", overrides=short)), encoding="utf-8")
    return str(path)


def test_each_seed_is_tested_in_every_variant(config: str, tmp_path: Path) -> None:
    variants = [{"model.student.inference": "single"}, {"model.student.nothing": 1}]
    outcomes = judge(config, [0.1], seeds=2, tuning_seeds=1, variants=variants, work_dir=tmp_path / "runs")
    assert [outcome.title for outcome in outcomes] == [config, f"{config} inference=single"]
    assert all(len(outcome.metrics["top1"]) == 2 for outcome in outcomes)
    assert outcomes[0].metrics["nll"] != outcomes[1].metrics["nll"]
    assert outcomes[0].rate == 0.1


def test_a_config_that_tests_on_its_validation_set_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="vision/digits/plain tests on its validation set.*HeldOut"):
        judge("vision/digits/plain", [0.1])
    assert behaviour.main(["vision/digits/plain", "--rates", "0.1"]) == 2
    assert "behaviour: vision/digits/plain tests on" in capsys.readouterr().err


def test_the_table_shows_the_gain_over_the_first() -> None:
    text = table(
        [Outcome("a", 0.1, {"top1": [90.0, 92.0]}), Outcome("b", 0.2, {"top1": [91.0, 95.0]})], ["top1", "few"]
    )
    first, second = text.splitlines()[1:]
    assert first.split()[0] == "a"
    assert "+2.00 (+1.00 to +3.00)" in second
