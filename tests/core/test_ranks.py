"""A distiller on two ranks trains as one process with the whole batch does: values, gradients, uneven last batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from limbeck_core import Distiller, Match, Tap
from limbeck_core.losses import KLDivergenceLoss
from ranks import on_ranks

WORLD = 2


class Pairs(nn.Module):
    """A loss over pairs of samples, which halves of a batch cannot compute."""

    relational = True

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor, target: Tensor) -> Tensor:
        same = target[:, None] == target[None, :]
        return (
            ((student_embeddings @ student_embeddings.T - teacher_embeddings @ teacher_embeddings.T) * same)
            .tanh()
            .mean()
        )


def distiller() -> Distiller:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    teacher = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    return Distiller(
        student,
        teacher,
        {
            "kd": Match(KLDivergenceLoss(2.0), "2", "2"),
            "total": Match(KLDivergenceLoss(reduction="sum"), "2", "2", weight=0.1),
            "masked": Match(KLDivergenceLoss(), "2", "2", extras={"mask": "keep"}),
            "pairs": Match(Pairs(), "0", Tap("0", of="teacher")),
        },
        task_loss=nn.CrossEntropyLoss(),
    )


def batch(n: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(n)
    inputs = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return {"inputs": inputs, "targets": torch.arange(n) % 3, "keep": torch.arange(n) % 4 != 1}


def step(model: nn.Module, data: dict[str, Tensor]) -> dict[str, Any]:
    losses = model(**data)
    sum(losses.values()).backward()
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    return {
        "losses": {name: value.detach() for name, value in losses.items()},
        "gradients": {name: p.grad for name, p in inner.named_parameters()},
    }


def ranked(rank: int) -> dict[int, dict[str, Any]]:
    found = {}
    for n in (8, 7):
        share = {name: value[rank::WORLD] for name, value in batch(n).items()}
        found[n] = step(DistributedDataParallel(distiller()), share)
    return found


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, dict[str, Any]]]:
    return on_ranks(tmp_path_factory.mktemp("ranks"), ranked)


@pytest.mark.parametrize("n", [8, 7])
def test_gradients_are_those_of_one_process(by_rank: list[dict[int, dict[str, Any]]], n: int) -> None:
    expected = step(distiller(), batch(n))
    for found in by_rank:
        for name, gradient in expected["gradients"].items():
            torch.testing.assert_close(found[n]["gradients"][name], gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", [8, 7])
def test_mean_of_the_ranks_losses_is_the_loss(by_rank: list[dict[int, dict[str, Any]]], n: int) -> None:
    expected = step(distiller(), batch(n))["losses"]
    for name, value in expected.items():
        mean = sum(found[n]["losses"][name] for found in by_rank) / WORLD
        torch.testing.assert_close(mean, value, rtol=1e-10, atol=1e-12)


def test_control_the_plain_mean_of_uneven_shares_is_another_gradient() -> None:
    """What data parallelism alone gives: each rank's mean counts the same, whatever its size."""
    halves = [step(distiller(), {k: v[rank::WORLD] for k, v in batch(7).items()})["gradients"] for rank in range(WORLD)]
    whole = step(distiller(), batch(7))["gradients"]
    gap = max(float(((halves[0][k] + halves[1][k]) / 2 - whole[k]).abs().max()) for k in whole)
    assert gap > 1e-3
