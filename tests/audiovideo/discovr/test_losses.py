"""Cluster distillation against loops, its limits, its gradient, its memory, and what it says of wrong input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck_audiovideo.discovr import ClusterDistillationLoss, cluster_distillation_loss, standardized
from limbeck_core.errors import LimbeckError, NonFiniteError, ShapeError


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_loops(student: Tensor, teacher: Tensor, prototypes: Tensor, *, hard: bool) -> np.ndarray:
    y, z = (unit(x.reshape(-1, x.shape[-1]).numpy()) for x in (student, teacher))
    q = np.exp(z @ prototypes.numpy().T / 0.05)
    for _ in range(10):
        q = q / q.sum(0)
        q = q / q.sum(1, keepdims=True)
    found = []
    for row, target in zip(y, q, strict=True):
        scores = prototypes.numpy() @ row / 0.1
        log_p = scores - np.log(np.exp(scores).sum())
        found.append(-log_p[target.argmax()] if hard else -(target * log_p).sum())
    return np.array(found)


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor]:
    prototypes = torch.nn.functional.normalize(rand(5, 8, seed=3), dim=1)
    return rand(2, 6, 8).requires_grad_(), rand(2, 6, 8, seed=1), prototypes.requires_grad_()


@pytest.mark.parametrize("assign", ["hard", "soft"])
def test_against_loops(case: tuple[Tensor, ...], assign: Any) -> None:
    student, teacher, prototypes = case
    expected = by_loops(student.detach(), teacher, prototypes.detach(), hard=assign == "hard")
    per_token = cluster_distillation_loss(student, teacher, prototypes, assign=assign, reduction="none")
    np.testing.assert_allclose(per_token.detach().numpy().ravel(), expected, rtol=1e-9)
    for reduction, value in (("mean", expected.mean()), ("sum", expected.sum())):
        loss = cluster_distillation_loss(student, teacher, prototypes, assign=assign, reduction=reduction)
        assert float(loss.detach()) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("assign", ["hard", "soft"])
def test_the_gradient_made_on_the_way_is_autograds(case: tuple[Tensor, ...], assign: Any) -> None:
    student, teacher, prototypes = case
    mask = torch.rand(2, 6, dtype=torch.float64)
    options: dict[str, Any] = {"assign": assign, "mask": mask}
    fast = cluster_distillation_loss(student, teacher, prototypes, **options)
    slow = cluster_distillation_loss(student, teacher, prototypes, reduction="none", **options).sum() / mask.sum()
    torch.testing.assert_close(fast, slow)
    expected = torch.autograd.grad(3 * slow, (student, prototypes))
    for got, wanted in zip(torch.autograd.grad(3 * fast, (student, prototypes)), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_pieces_give_the_same_as_one(case: tuple[Tensor, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, prototypes = case

    def run() -> tuple[Tensor, ...]:
        loss = cluster_distillation_loss(student, teacher, prototypes)
        return (loss.detach(), *torch.autograd.grad(loss, (student, prototypes)))

    whole = run()
    monkeypatch.setattr("limbeck_audiovideo.discovr.losses._ROWS", 5)
    for got, wanted in zip(run(), whole, strict=True):
        torch.testing.assert_close(got, wanted)


def test_limits() -> None:
    prototypes = torch.eye(4)
    same = torch.eye(4)
    assert float(cluster_distillation_loss(same, same, prototypes, temperature=1e-2)) < 1e-6
    nothing = torch.zeros(4, 4)  # a token without direction scores all prototypes alike
    assert float(cluster_distillation_loss(nothing, same, prototypes)) == pytest.approx(math.log(4))


def test_all_prototypes_are_used_where_the_nearest_is_always_the_same() -> None:
    torch.manual_seed(0)
    teacher = torch.nn.functional.normalize(torch.randn(1, 64, 8) * 0.2 + torch.eye(8)[0], dim=-1)
    loss = ClusterDistillationLoss(4, 8, every=1)
    with torch.no_grad():
        loss.prototypes.copy_(torch.eye(8)[:4])
    nearest = (teacher[0] @ loss.prototypes.T).argmax(1)
    assert len(nearest.unique()) == 1, "without Sinkhorn one prototype takes all"
    labels = torch.stack([teacher, teacher], 0)[:1].reshape(1, 1, 64, 8)
    assert loss.used(labels) == 1.0


def test_gradient_stops_at_the_teacher(case: tuple[Tensor, ...]) -> None:
    student, teacher, prototypes = case
    teacher.requires_grad_()
    loss = cluster_distillation_loss(student, teacher, prototypes)
    student_grad, teacher_grad = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
    assert student_grad is not None
    assert teacher_grad is None


def test_the_other_direction_adds_a_number_and_no_gradient(case: tuple[Tensor, ...]) -> None:
    student, teacher, prototypes = case
    one = cluster_distillation_loss(student, teacher, prototypes)
    both = cluster_distillation_loss(student, teacher, prototypes, symmetric=True)
    other = by_loops(teacher, student.detach(), prototypes.detach(), hard=True).mean()
    assert float((both - one).detach()) == pytest.approx(other)
    slopes = [torch.autograd.grad(loss, (student, prototypes)) for loss in (one, both)]
    for a, b in zip(*slopes, strict=True):
        assert torch.equal(a, b)


def test_only_the_masked_count(case: tuple[Tensor, ...]) -> None:
    student, teacher, prototypes = case
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[0, :2] = True
    every = cluster_distillation_loss(student, teacher, prototypes, reduction="none")
    some = cluster_distillation_loss(student, teacher, prototypes, mask=mask)
    torch.testing.assert_close(some, every[0, :2].mean())
    nothing = cluster_distillation_loss(student, teacher, prototypes, mask=torch.zeros_like(mask))
    assert float(nothing.detach()) == 0
    assert torch.equal(torch.autograd.grad(nothing, student)[0], torch.zeros_like(student))


def test_no_tokens_give_a_differentiable_zero() -> None:
    student = torch.zeros(0, 6, 8, requires_grad=True)
    loss = cluster_distillation_loss(student, torch.zeros(0, 6, 8), torch.eye(8)[:5])
    assert float(loss.detach()) == 0
    loss.backward()


def test_half_precision_under_autocast_is_computed_in_float32() -> None:
    student, teacher, prototypes = rand(2, 6, 8).float(), rand(2, 6, 8, seed=1).float(), torch.eye(8)[:5]
    exact = cluster_distillation_loss(student, teacher, prototypes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cluster_distillation_loss(student, teacher, prototypes), exact)
    halved = cluster_distillation_loss(student.half(), teacher.half(), prototypes)
    assert halved.dtype == torch.float32
    assert float(halved) == pytest.approx(float(exact), rel=1e-2)


def test_one_matrix_of_scores_at_most() -> None:
    """16 x 1568 tokens and 3000 prototypes must stay under 1 GB: nothing but the assignment may be as large as that."""
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.numel() >= 4096 * 300:
                sizes.append(out.untyped_storage().data_ptr())
            return out

    student = torch.randn(2, 2048, 16, requires_grad=True)
    teacher, prototypes = torch.randn(2, 2048, 16), torch.nn.functional.normalize(torch.randn(300, 16), dim=1)
    with Watch():
        cluster_distillation_loss(student, teacher, prototypes).backward()
    assert len(set(sizes)) == 1


def test_standardized_pictures() -> None:
    tokens = rand(2, 3, 7, 4) * 5 + 2
    found = standardized(tokens)
    torch.testing.assert_close(found.mean(-2), torch.zeros(2, 3, 4, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(found.std(-2), torch.ones(2, 3, 4, dtype=torch.float64), atol=1e-5, rtol=0)
    assert torch.equal(standardized(torch.full((1, 7, 4), 3.0)), torch.zeros(1, 7, 4)), "a black sector"
    assert torch.equal(standardized(torch.full((1, 1, 4), 3.0)), torch.zeros(1, 1, 4)), "one patch"


def test_which_tokens_of_the_teacher() -> None:
    teacher = rand(1, 4, 3, 2)
    frames = ClusterDistillationLoss(4, 2).targets(teacher)
    torch.testing.assert_close(frames, standardized(teacher)[:, [0, 2]].flatten(1, 2))
    tokens = ClusterDistillationLoss(4, 2, subsample="tokens").targets(teacher)
    torch.testing.assert_close(tokens, standardized(teacher).flatten(1, 2)[:, [0, 2, 4, 6, 8, 10]])
    with pytest.raises(ShapeError, match="3 pictures do not divide into tubelets of 2"):
        ClusterDistillationLoss(4, 2).targets(rand(1, 3, 3, 2))


def test_prototypes_have_length_one_after_a_training_step_and_are_left_alone_otherwise() -> None:
    torch.manual_seed(0)
    loss = ClusterDistillationLoss(4, 8, every=1).eval()
    before = loss.prototypes.detach().clone()
    tokens = torch.randn(2, 6, 8), torch.randn(2, 2, 3, 8)
    value = loss(*tokens)
    assert torch.equal(loss.prototypes, before)
    assert float((loss.train()(*tokens) - value).detach().abs()) < 1e-6, "both compare with directions"
    loss(*tokens).backward()
    torch.testing.assert_close(loss.prototypes.norm(dim=1), torch.ones(4))
    assert loss.prototypes.grad is not None


def test_more_prototypes_than_half_the_tokens_warn_once() -> None:
    loss = ClusterDistillationLoss(9, 8, every=1)
    with pytest.warns(UserWarning, match="9 prototypes for 12 tokens"):
        loss(torch.randn(2, 6, 8), torch.randn(2, 2, 3, 8))
    with np.testing.suppress_warnings() as caught:
        record = caught.record(UserWarning)
        loss(torch.randn(2, 6, 8), torch.randn(2, 2, 3, 8))
    assert record == []


def test_what_does_not_fit(case: tuple[Tensor, ...]) -> None:
    student, teacher, prototypes = case
    with pytest.raises(ShapeError, match="must be of the same places"):
        cluster_distillation_loss(student, teacher[:, :5], prototypes)
    with pytest.raises(ShapeError, match="width of the tokens"):
        cluster_distillation_loss(student, teacher, prototypes[:, :7])
    with pytest.raises(ValueError, match="assign must be 'hard' or 'soft'"):
        cluster_distillation_loss(student, teacher, prototypes, assign="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="temperature"):
        cluster_distillation_loss(student, teacher, prototypes, temperature=0.0)
    broken = teacher.clone()
    broken[1, 2, 3] = math.nan
    with pytest.raises(NonFiniteError, match="NaN"):
        cluster_distillation_loss(student, broken, prototypes)
    with pytest.raises(LimbeckError, match="differentiated twice"):
        torch.autograd.grad(cluster_distillation_loss(student, teacher, prototypes), student, create_graph=True)
    for wrong in ({"every": 0}, {"num_prototypes": 0}, {"temperature": 0.0}, {"assign": "x"}, {"subsample": "x"}):
        with pytest.raises(ValueError, match="must be"):
            ClusterDistillationLoss(**wrong)  # type: ignore[arg-type]
