"""Losses that look beyond one sample give on two ranks what one process gives: value, gradient, what they remember."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from limbeck_core import Distiller, Match, losses
from limbeck_core import functional as F
from limbeck_core.gather import all_max
from ranks import on_ranks

WORLD, STEPS = 2, 2
NAMES = ("rkd", "sp", "pkt", "cc", "sp_function", "minilm", "scores", "crd", "dino")


class Toy(nn.Module):
    """Three tokens in, a vector, token states and scores between tokens out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.states = nn.Linear(2, width)
        self.pool = nn.Flatten(1)
        self.scores = Scores()

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.states(tokens)
        self.scores(states)
        return self.pool(states)


class Scores(nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        return states @ states.mT


def distiller() -> Distiller:
    torch.manual_seed(0)
    contrast = losses.ContrastiveRepresentationLoss(12, 12, 9, embedding_dim=3, num_negatives=6)
    matches = {
        "rkd": Match(losses.RelationalLoss(), "pool", "pool"),
        "sp": Match(losses.SimilarityPreservingLoss(reduction="sum"), "pool", "pool"),
        "pkt": Match(losses.ProbabilisticTransferLoss(), "pool", "pool"),
        "cc": Match(losses.CorrelationCongruenceLoss(), "pool", "pool"),
        "sp_function": Match(F.similarity_preserving_loss, "pool", "pool"),
        "minilm": Match(losses.SelfAttentionRelationLoss(2), "states", "states", extras={"mask": "tokens"}),
        "scores": Match(losses.AttentionMSELoss(), "scores", "scores", extras={"mask": "tokens"}),
        "crd": Match(contrast, "pool", "pool"),
        "dino": Match(losses.DINOLoss(12, teacher_views=1, skip_same_view=False), "pool", "pool"),
    }
    return Distiller(Toy(4), Toy(4), matches).double()


def batch(n: int, step: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(10 * n + step)
    return {
        "inputs": torch.randn(n, 3, 2, generator=draws, dtype=torch.float64),
        "targets": torch.arange(n) % 3,
        "ids": torch.randperm(9, generator=draws)[:n],
        "tokens": torch.arange(3) < (3 * torch.arange(n)[:, None] + 1) % 4,  # one token, none, three, two, one
    }


def run(model: nn.Module, share: slice, n: int) -> dict[str, Any]:
    """Two steps without an optimiser, so that the second sees what the first remembered."""
    inner: Distiller = model.module if isinstance(model, DistributedDataParallel) else model  # type: ignore[assignment]
    found: dict[str, Any] = {"values": [], "gradients": []}
    for step in range(STEPS):
        model.zero_grad()
        values = model(**{name: value[share] for name, value in batch(n, step).items()})
        sum(values.values()).backward()
        found["values"].append({name.removeprefix("loss/"): value.detach() for name, value in values.items()})
        found["gradients"].append({name: p.grad.clone() for name, p in inner.named_parameters()})
    found["memory"] = {name: value.clone() for name, value in inner.matches.state_dict().items()}
    return found


def assignments(share: slice) -> Tensor:
    scores = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return F.sinkhorn_assignment(scores[share], epsilon=0.3, iterations=3)


def ranked(rank: int) -> dict[str, Any]:
    share = slice(rank, None, WORLD)
    found: dict[str, Any] = {"sinkhorn": assignments(share)}
    for n in (5, 1):
        model = DistributedDataParallel(distiller(), broadcast_buffers=False, find_unused_parameters=True)
        found[str(n)] = run(model, share, n)
    found["none here"] = assignments(slice(0, 5) if rank == 0 else slice(0, 0))
    found["max"] = all_max(torch.tensor([float(rank), -float(rank)]))
    return found


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(tmp_path_factory.mktemp("ranks"), ranked)


@pytest.mark.parametrize("name", NAMES)
def test_values(by_rank: list[dict[str, Any]], name: str) -> None:
    """Five samples are three and two. A mean over samples is the mean of the ranks' values."""
    expected = run(distiller(), slice(None), 5)["values"]
    for step in range(STEPS):
        mean = sum(found["5"]["values"][step][name] for found in by_rank) / WORLD
        torch.testing.assert_close(mean, expected[step][name], rtol=1e-10, atol=1e-12)


def test_gradients(by_rank: list[dict[str, Any]]) -> None:
    expected = run(distiller(), slice(None), 5)["gradients"]
    for found in by_rank:
        for step in range(STEPS):
            for name, gradient in expected[step].items():
                torch.testing.assert_close(found["5"]["gradients"][step][name], gradient, rtol=1e-10, atol=1e-12)


def test_memories(by_rank: list[dict[str, Any]]) -> None:
    """Banks, normalisers, labels, draws and the centre are those of one process, on every rank."""
    expected = run(distiller(), slice(None), 5)["memory"]
    assert float(expected["dino.loss.center"].abs().sum()) > 0
    for found in by_rank:
        for name, value in expected.items():
            torch.testing.assert_close(found["5"]["memory"][name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:a batch of one sample:RuntimeWarning")
def test_a_rank_without_samples(by_rank: list[dict[str, Any]]) -> None:
    expected = run(distiller(), slice(None), 1)
    for found in by_rank:
        for name, gradient in expected["gradients"][1].items():
            torch.testing.assert_close(found["1"]["gradients"][1][name], gradient, rtol=1e-10, atol=1e-12)
        for name, value in expected["memory"].items():
            torch.testing.assert_close(found["1"]["memory"][name], value, rtol=1e-10, atol=1e-12)


def test_sinkhorn_sees_all_samples(by_rank: list[dict[str, Any]]) -> None:
    expected = assignments(slice(None))
    for rank, found in enumerate(by_rank):
        torch.testing.assert_close(found["sinkhorn"], expected[rank::WORLD], rtol=1e-10, atol=0)
    torch.testing.assert_close(by_rank[0]["none here"], expected, rtol=1e-10, atol=0)
    assert by_rank[1]["none here"].shape == (0, 3)


def test_largest_over_ranks(by_rank: list[dict[str, Any]]) -> None:
    assert all(torch.equal(found["max"], torch.tensor([1.0, 0.0])) for found in by_rank)


@pytest.mark.parametrize("name", ["rkd", "sp", "pkt", "cc"])
def test_control_halves_give_other_values(name: str) -> None:
    whole = run(distiller(), slice(None), 6)["values"][0][name]
    halves = [run(distiller(), slice(rank, None, WORLD), 6)["values"][0][name] for rank in range(WORLD)]
    assert abs(float(sum(halves) / WORLD - whole)) > 1e-4 * float(whole)
