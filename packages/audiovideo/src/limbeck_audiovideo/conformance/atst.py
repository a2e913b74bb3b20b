"""Adapter from ATST's golden item of its moving average to core's teacher; core adapts the losses and schedules."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from limbeck_core.conformance import Adapter, GoldenCase
from limbeck_core.schedules import Cosine, Progress
from limbeck_core.teacher import EMATeacher


class _Weights(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.clone())


def _atst_ema(case: GoldenCase) -> Mapping[str, Tensor]:
    x, p = case.inputs, case.params
    momentum = Cosine(p["base"], 1.0)
    teacher = EMATeacher(_Weights(x["teacher0"]), momentum, mode="batch_stats", buffers="own")
    after = []
    for step, value in enumerate(x["student_steps"][: p["steps"]]):
        teacher.update(_Weights(value), Progress(step=step, max_steps=p["max_steps"]))
        after.append(dict(teacher.model.named_parameters())["value"].detach().clone())
    schedule = [momentum(Progress(step=step, max_steps=p["max_steps"])) for step in range(p["max_steps"])]
    return {"value": torch.stack(after), "out_schedule": torch.tensor(schedule, dtype=torch.float64)}


ADAPTERS: dict[str, Adapter] = {"atst_ema": _atst_ema}
