"""Adapters from golden items to :mod:`limbeck_core.schedules`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from limbeck_core.conformance.harness import Adapter, GoldenCase
from limbeck_core.schedules import Cosine, Linear, Progress, Schedule


def _over(schedule: Schedule, steps: int) -> Mapping[str, Tensor]:
    values = [schedule(Progress(step=i, epoch=i, max_steps=steps, max_epochs=steps)) for i in range(steps)]
    return {"value": torch.tensor(values, dtype=torch.float64)}


def _sched_dino_cosine(case: GoldenCase) -> Mapping[str, Tensor]:
    p = case.params
    schedule = Cosine(p["base"], p["final"], warm_up=p["warmup_epochs"] * p["niter"], warm_up_start=p["start"])
    return _over(schedule, p["epochs"] * p["niter"])


def _sched_atst_cosine(case: GoldenCase) -> Mapping[str, Tensor]:
    p = case.params
    schedule = Cosine(p["base"], p["final"], warm_up=p["warmup"], warm_up_start=p["start"])
    return _over(schedule, p["max_steps"])


def _dwpose_decay(case: GoldenCase) -> Mapping[str, Tensor]:
    return _over(Linear(1.0, 0.0, by="epoch"), case.params["max_epochs"])


ADAPTERS: dict[str, Adapter] = {
    "dwpose_decay": _dwpose_decay,
    "sched_atst_cosine": _sched_atst_cosine,
    "sched_dino_cosine": _sched_dino_cosine,
}
