"""PyTorch's FSDP2 on the whole distiller, the teacher replicated: the step of two ranks is that of one process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck_core import Distiller, EMATeacher, Match
from limbeck_core.losses import KLDivergenceLoss
from ranks import on_ranks

WORLD = 2


def distiller(*, ema: bool) -> Distiller:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    teacher = EMATeacher(student, momentum=0.5) if ema else nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4))
    matches = {
        "kd": Match(KLDivergenceLoss(2.0), "2", "2"),
        "hint": Match(nn.MSELoss(), "0", "0", adapter=nn.Linear(8, 8)),
    }
    made = Distiller(student, teacher, matches, task_loss=nn.CrossEntropyLoss()).double()
    if ema:
        with torch.no_grad():
            made.teacher.model[0].weight.add_(0.1)  # else there is nothing to learn from it
    return made


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"inputs": torch.randn(8, 5, generator=generator, dtype=torch.float64), "targets": torch.arange(8) % 4}


def train(model: Distiller, data: dict[str, Tensor]) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        sum(model(**data).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        if isinstance(model.teacher, EMATeacher):
            model.teacher.update(model.student, step)
    whole = {
        name: getattr(value, "full_tensor", lambda value=value: value)() for name, value in model.state_dict().items()
    }
    teacher = {f"teacher.{name}": value for name, value in model.teacher.state_dict().items()}
    return {name: value.detach().clone() for name, value in {**whole, **teacher}.items()}


def sharded(rank: int) -> dict[str, Any]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    found = {}
    mesh = init_device_mesh("cpu", (WORLD,))
    for ema in (False, True):
        model = distiller(ema=ema)
        for layer in (model.student[0], model.student[2]):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        share = {name: value[rank::WORLD] for name, value in batch().items()}
        found[str(ema)] = train(model, share)
    return found


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(tmp_path_factory.mktemp("ranks"), sharded)


@pytest.mark.parametrize("ema", [False, True], ids=["frozen", "ema"])
def test_three_steps_give_the_weights_of_one_process(by_rank: list[dict[str, Any]], ema: bool) -> None:
    expected = train(distiller(ema=ema), batch())
    for found in by_rank:
        assert found[str(ema)].keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[str(ema)][name], value, rtol=1e-9, atol=1e-11)
