"""Schedules: the papers' formulas, the references' arrays, and a sentence when the length of the run is not known."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from limbeck_core.conformance import read_case
from limbeck_core.errors import ConfigError
from limbeck_core.schedules import (
    Complement,
    Constant,
    Cosine,
    Linear,
    Progress,
    Schedule,
    StopAfter,
    WarmUp,
    as_schedule,
)


def over(schedule: Schedule, steps: int, *, unit: str = "step") -> list[float]:
    return [schedule(Progress(**{unit: i, f"max_{unit}s": steps})) for i in range(steps)]


def test_number_is_a_constant() -> None:
    assert over(as_schedule(0.3), 3) == [0.3, 0.3, 0.3]


def test_dwpose_decay() -> None:
    assert over(Linear(1.0, 0.0, by="epoch"), 4, unit="epoch") == [1.0, 0.75, 0.5, 0.25]


def test_line_between_two_steps() -> None:
    assert over(Linear(0.0, 1.0, begin=1, until=3), 5) == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_dkd_warm_up() -> None:
    assert over(WarmUp(1.0, length=4), 6, unit="epoch") == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_ps_kd_weight() -> None:
    np.testing.assert_allclose(over(WarmUp(0.8), 4, unit="epoch"), [0.2, 0.4, 0.6, 0.8])


def test_stop_after() -> None:
    assert over(StopAfter(Linear(1.0, 0.0, by="epoch"), until=2), 4, unit="epoch") == [1.0, 0.75, 0.0, 0.0]


def test_complement() -> None:
    assert over(Complement(WarmUp(0.8)), 4, unit="epoch") == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert Complement(0.25)(Progress()) == 0.75
    assert as_schedule({"type": Complement, "schedule": {"type": WarmUp, "value": 0.8}}) == Complement(WarmUp(0.8))
    with pytest.raises(ConfigError, match="expected a finite number or a schedule"):
        Complement("much")  # type: ignore[arg-type]


@pytest.mark.parametrize("case", [1, 2])
def test_dinos_cosine(golden: Path, case: int) -> None:
    vector = read_case(golden / f"sched_dino_cosine__c{case}.npz")
    p = vector.params
    schedule = Cosine(p["base"], p["final"], warm_up=p["warmup_epochs"] * p["niter"], warm_up_start=p["start"])
    np.testing.assert_allclose(over(schedule, p["epochs"] * p["niter"]), vector.expected["value"].numpy(), rtol=1e-12)


@pytest.mark.parametrize("case", [1, 2])
def test_atsts_cosine(golden: Path, case: int) -> None:
    vector = read_case(golden / f"sched_atst_cosine__c{case}.npz")
    p = vector.params
    schedule = Cosine(p["base"], p["final"], warm_up=p["warmup"], warm_up_start=p["start"])
    np.testing.assert_allclose(over(schedule, p["max_steps"]), vector.expected["value"].numpy(), rtol=1e-12)


def test_configs_inside_of_configs() -> None:
    inner = {"type": Linear, "start": 1.0, "end": 0.0, "by": "epoch"}
    schedule = as_schedule({"type": StopAfter, "schedule": inner, "until": 2})
    assert over(schedule, 4, unit="epoch") == [1.0, 0.75, 0.0, 0.0]


@pytest.mark.parametrize("schedule", [Linear(1, 0), Cosine(1, 0), WarmUp(1, by="step")])
def test_unknown_length_is_a_sentence(schedule: Schedule) -> None:
    with pytest.raises(ConfigError, match=r"max_steps is not known: tell the distiller with set_progress"):
        schedule(Progress(step=3))


@pytest.mark.parametrize("make", [lambda: Linear(1, 0, by="batch"), lambda: WarmUp(1, by="batch")])
def test_unknown_unit(make: object) -> None:
    with pytest.raises(ConfigError, match="by must be 'step' or 'epoch', got 'batch'"):
        make()


def test_line_without_length() -> None:
    with pytest.raises(ConfigError, match=r"until must come after begin \(5\), got 5"):
        Linear(1, 0, begin=5, until=5)


@pytest.mark.parametrize("value", ["0.5", None, float("nan"), True])
def test_what_is_no_schedule(value: object) -> None:
    with pytest.raises(ConfigError, match="expected a finite number or a schedule"):
        as_schedule(value)


def test_plain_data() -> None:
    schedule = StopAfter(Cosine(1.0, 0.0, warm_up=3), until=2)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert repr(Constant(1.0)) == "Constant(value=1.0)"
