"""KoLeo: against a plain formula, its gradient, and what it promises at the edges."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from limbeck_core import functional as F
from limbeck_core import losses
from limbeck_core.errors import NonFiniteError, ShapeError
from loss_contract import randn


def by_loops(embeddings: np.ndarray) -> list[float]:
    x = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = []
    for i in range(len(x)):
        nearest = min(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)
        found.append(-math.log(nearest + 1e-8))
    return found


def test_against_loops_and_reductions() -> None:
    x = randn(7, 5)
    expected = by_loops(x.numpy())
    np.testing.assert_allclose(F.koleo_loss(x, reduction="none").numpy(), expected, rtol=1e-12)
    assert float(F.koleo_loss(x)) == pytest.approx(np.mean(expected))
    assert float(F.koleo_loss(x, reduction="sum")) == pytest.approx(np.sum(expected))
    assert float(losses.KoLeoLoss()(3 * x)) == pytest.approx(np.mean(expected))  # lengths do not matter


def test_gradient() -> None:
    assert gradcheck(F.koleo_loss, randn(6, 4).requires_grad_())


def test_a_step_against_it_moves_neighbours_apart() -> None:
    x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.2]], requires_grad=True)
    before = F.koleo_loss(x)
    before.backward()
    assert float(F.koleo_loss(x.detach() - 0.01 * x.grad)) < float(before.detach())


def test_equal_and_zero_embeddings_stay_finite() -> None:
    x = torch.zeros(4, 3)
    x[1:] = 1.0
    leaf = x.requires_grad_()
    loss = F.koleo_loss(leaf)
    loss.backward()
    # the zero vector lies at distance 1 from all others, which lie on each other
    assert float(loss.detach()) == pytest.approx(-0.75 * math.log(1e-8))
    assert float(leaf.grad.abs().max()) < 1.0


@pytest.mark.parametrize("count", [0, 1])
def test_nobody_to_keep_away_from(count: int) -> None:
    leaf = torch.ones(count, 3, requires_grad=True)
    loss = F.koleo_loss(leaf)
    loss.backward()
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype: torch.dtype) -> None:
    x = randn(6, 8).to(dtype)
    torch.testing.assert_close(F.koleo_loss(x).double(), F.koleo_loss(x.double()), rtol=1e-4, atol=1e-4)


def test_module_survives_pickle_and_deepcopy() -> None:
    module = losses.KoLeoLoss(epsilon=1e-4, reduction="sum")
    x = randn(5, 3)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(twin(x), F.koleo_loss(x, epsilon=1e-4, reduction="sum"))
    assert repr(module) == "KoLeoLoss(epsilon=0.0001, reduction='sum')"


def test_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"student_embeddings.*\(N, D\).*\(4,\)"):
        F.koleo_loss(randn(4))
    with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', got 'avg'"):
        losses.KoLeoLoss(reduction="avg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epsilon must be a finite number above 0"):
        losses.KoLeoLoss(epsilon=0.0)
    bad = randn(4, 3)
    bad[1] = float("nan")
    with pytest.raises(NonFiniteError, match="student_embeddings"):
        F.koleo_loss(bad)
