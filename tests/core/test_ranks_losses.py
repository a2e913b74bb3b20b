"""Every loss on two ranks: the average of the ranks' gradients is that of one process, uneven batch included."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from contracts import contracts
from limbeck_core import Match, Tap, losses
from loss_contract import LossContract
from ranks import on_ranks

WORLD, BATCH = 2, 7

# Losses that cannot be compared this way, and where they are tested instead.
ELSEWHERE = {
    "ContrastiveRepresentationLoss": "draws negatives and keeps memories: test_contrast.py",
    "MaskedGenerativeLoss": "draws a mask: test_features.py",
    "DINOLoss": "rows are crops by samples, which shares of samples interleave: test_contrast.py",
    "KoLeoLoss": "each rank spreads its own samples: test_spread.py",
    "LinearJSDLoss": "rows are tokens, and it takes weights: test_large_vocabulary.py",
}


def compared() -> dict[str, LossContract]:
    """The losses that this file holds against one process."""
    return {name: contract for name, contract in contracts().items() if name not in ELSEWHERE}


def share(value: Any, rank: int | None) -> Any:
    """This rank's samples of a tensor or list of tensors; weights and numbers belong to everybody."""
    if isinstance(value, list):
        return [share(item, rank) for item in value]
    if rank is not None and isinstance(value, Tensor) and value.ndim and len(value) == BATCH:
        return value[rank::WORLD]
    return value


def gradients(contract: LossContract, rank: int | None) -> list[Tensor]:
    """Gradients of a scale on the student and of the loss's own parameters, through a match."""
    torch.manual_seed(0)
    module = copy.deepcopy(contract.build())
    arguments = {name: share(value, rank) for name, value in contract.pack(contract.inputs(batch=BATCH)).items()}
    names = list(arguments)
    scale = nn.Parameter(torch.ones((), dtype=torch.float64))
    scaled = arguments[names[0]]
    arguments[names[0]] = [x * scale for x in scaled] if isinstance(scaled, list) else scaled * scale
    extras = {name: Tap(name, of="batch") for name in names[2:]}
    match = Match(module, names[0], Tap(names[1], of="batch"), extras=extras)
    match(lambda tap: arguments[tap.path], {}).backward()
    parameters = [scale, *module.parameters()]
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def ranked(rank: int) -> dict[str, list[Tensor]]:
    found = {}
    for name, contract in compared().items():
        averaged = gradients(contract, rank)
        for gradient in averaged:  # what data parallelism does
            dist.all_reduce(gradient)
            gradient.div_(WORLD)
        found[name] = averaged
    return found


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    return on_ranks(tmp_path_factory.mktemp("ranks"), ranked)


def test_every_loss_is_here_or_named_elsewhere() -> None:
    assert {name for name in losses.__all__ if name.endswith("Loss")} == compared().keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("name", sorted(compared()))
def test_two_ranks_equal_one_process(by_rank: list[dict[str, list[Tensor]]], name: str) -> None:
    expected = gradients(compared()[name], None)
    for found in by_rank:
        for got, wanted in zip(found[name], expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)
