"""Two ranks compute what one process does, value and gradient, also with an uneven batch and an empty share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from limbeck_core.errors import ShapeError
from limbeck_core.gather import all_sum, gather, mean_scale
from ranks import on_ranks

WORLD = 2


def relation(embeddings: Tensor, targets: Tensor) -> Tensor:
    """A loss over pairs: it differs from the mean of the two halves' losses."""
    gram = embeddings @ embeddings.T
    return (gram.tanh() * (targets[:, None] == targets[None, :])).mean()


def samples(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 3, generator=generator, dtype=torch.float64), torch.arange(n) % 2


def model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 4).double()


def everything(rank: int, n: int) -> dict[str, Tensor]:
    x, y = samples(n)
    mine, labels = x[rank::WORLD], y[rank::WORLD]
    net = DistributedDataParallel(model())
    out = net(mine)
    loss = relation(gather(out), gather(labels)) + mean_scale(len(mine)) * out.square().sum(1).sum() / max(len(mine), 1)
    loss.backward()
    flags = gather(labels == 1)
    try:
        gather(torch.zeros(2, 3 + rank))
        said = "nothing"
    except ShapeError as error:
        said = str(error)
    return {
        "gathered": gather(mine),
        "flags": flags,
        "relation": relation(gather(out), gather(labels)).detach(),
        "gradient": net.module.weight.grad,
        "sum": all_sum(torch.tensor(float(rank + 1))),
        "told": torch.tensor("(2, 3), (2, 4)" in said),
    }


def both(rank: int) -> dict[int, dict[str, Tensor]]:
    return {n: everything(rank, n) for n in (5, 1)}


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, dict[str, Tensor]]]:
    return on_ranks(tmp_path_factory.mktemp("ranks"), both)


@pytest.mark.parametrize("n", [5, 1])
def test_two_ranks_equal_one_process(by_rank: list[dict[int, dict[str, Tensor]]], n: int) -> None:
    """Five samples are three and two; one sample leaves the second rank with none."""
    x, y = samples(n)
    net = model()
    out = net(x)
    expected = relation(out, y) + out.square().sum(1).mean()
    expected.backward()
    for found in (results[n] for results in by_rank):
        assert torch.equal(found["gathered"], x)
        assert torch.equal(found["flags"], y == 1)
        torch.testing.assert_close(found["relation"], relation(out, y).detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found["gradient"], net.weight.grad, rtol=1e-10, atol=1e-12)
        assert float(found["sum"]) == 3.0
        assert bool(found["told"])


def test_control_halves_by_themselves_are_another_loss() -> None:
    x, y = samples(6)
    out = model()(x)
    halves = (relation(out[0::2], y[0::2]) + relation(out[1::2], y[1::2])) / 2
    assert abs(float((halves - relation(out, y)).detach())) > 1e-3


def test_one_process_is_the_identity() -> None:
    x = torch.randn(4, 2)
    assert gather(x) is x
    assert float(mean_scale(3)) == 1.0


def test_scalar_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"got a scalar: reshape it to \(1,\)"):
        gather(torch.tensor(1.0))
