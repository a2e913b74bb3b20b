"""COMODO's loss against the formula written out, and its queue against a list."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from limbeck_audiovideo.comodo import SimilarityQueueLoss, similarity_queue_loss
from limbeck_audiovideo.comodo import losses as module_of_losses
from limbeck_core import Match
from limbeck_core.errors import LimbeckError, NonFiniteError, ShapeError
from loss_contract import LossContract, randn


def unit(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return normalize(randn(*shape, seed=seed), dim=1).to(dtype)


class TestSimilarityQueueLoss(LossContract):
    function = staticmethod(similarity_queue_loss)
    module = SimilarityQueueLoss
    hyper = {"student_temperature": 0.2, "teacher_temperature": 0.4}
    module_hyper = {**hyper, "embedding_dim": 5, "queue_size": 7}
    zero_at_equality = False  # a cross-entropy: the teacher's entropy remains

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        teacher = unit(batch, 5, seed=2, dtype=dtype)
        return {"student_embeddings": randn(batch, 5, seed=1, dtype=dtype), "teacher_embeddings": teacher}

    def call(self, **arguments: Any) -> Tensor:
        queue = arguments["student_embeddings"].new_zeros(0, 5).detach()
        return similarity_queue_loss(**arguments, queue=queue, **self.hyper)

    def build(self, **extra: Any) -> SimilarityQueueLoss:
        return SimilarityQueueLoss(**{**self.module_hyper, **extra}).double().eval()

    def test_student_comes_first_and_teacher_second(self) -> None:
        student, teacher = self.inputs().values()
        queue = unit(7, 5, seed=3)
        named = similarity_queue_loss(student_embeddings=student, teacher_embeddings=teacher, queue=queue)
        torch.testing.assert_close(similarity_queue_loss(student, teacher, queue), named)

    def test_reductions_agree(self) -> None:
        arguments = {**self.inputs(), "queue": unit(7, 5, seed=3)}
        each = similarity_queue_loss(**arguments, reduction="none")
        assert each.shape == (4,)
        torch.testing.assert_close(each.mean(), similarity_queue_loss(**arguments))
        torch.testing.assert_close(each.sum(), similarity_queue_loss(**arguments, reduction="sum"))

    def test_misspelt_reduction_is_refused(self) -> None:
        with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', got 'avg'"):
            similarity_queue_loss(**self.inputs(), queue=unit(7, 5, seed=3), reduction="avg")
        with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', got 'avg'"):
            self.build(reduction="avg")


def written_out(
    student: Tensor, teacher: Tensor, queue: Tensor, student_temperature: float, teacher_temperature: float
):
    candidates = torch.cat([queue, teacher]).detach()
    target = torch.softmax(teacher.detach() @ candidates.T / teacher_temperature, 1)
    scores = torch.log_softmax(normalize(student, dim=1) @ candidates.T / student_temperature, 1)
    return -(target * scores).sum(1).mean()


@pytest.mark.parametrize("cells", [1 << 22, 40], ids=["at once", "in parts"])
def test_value_and_gradient_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr(module_of_losses, "_CELLS", cells)
    teacher, queue = unit(9, 6, seed=1), unit(11, 6, seed=2)
    ours, theirs = (randn(9, 6, seed=3).requires_grad_() for _ in range(2))
    loss = similarity_queue_loss(ours, teacher, queue)
    expected = written_out(theirs, teacher, queue, 0.05, 0.1)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_loss_is_never_below_the_teachers_entropy() -> None:
    teacher, queue = unit(8, 4, seed=1), unit(20, 4, seed=2)
    target = torch.softmax(teacher @ torch.cat([queue, teacher]).T / 0.1, 1)
    entropy = -(target * target.log()).sum(1)
    same = similarity_queue_loss(teacher, teacher, queue, student_temperature=0.1, reduction="none")
    torch.testing.assert_close(same, entropy)
    other = similarity_queue_loss(randn(8, 4, seed=3), teacher, queue, student_temperature=0.1, reduction="none")
    assert bool((other > entropy).all())


def test_a_single_candidate_by_hand() -> None:
    """Two candidates at right angles, the student half way: both cost log 2."""
    teacher, queue = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    loss = similarity_queue_loss(torch.tensor([[1.0, 1.0]]), teacher, queue)
    assert float(loss) == pytest.approx(math.log(2), abs=1e-6)


def test_queue_is_first_in_first_out_whatever_the_batch() -> None:
    loss = SimilarityQueueLoss(3, 7).double()
    kept = torch.zeros(0, 3, dtype=torch.float64)
    for step, size in enumerate([4, 4, 1, 7, 3, 10, 2, 0, 5]):
        rows = unit(size, 3, seed=step)
        loss(randn(size, 3, seed=100 + step), rows)
        kept = torch.cat([kept, rows])[-7:]
        torch.testing.assert_close(loss.rows(), kept, rtol=0, atol=1e-12)
    assert loss.filled == 7


def test_queue_is_written_in_place_and_needs_no_copy_for_the_gradient() -> None:
    loss = SimilarityQueueLoss(3, 4)
    storage = loss.queue.data_ptr()
    student = torch.randn(3, 3, requires_grad=True)
    value = loss(student, torch.randn(3, 3)) + loss(student, torch.randn(3, 3))
    value.backward()  # both calls changed the queue in between
    assert loss.queue.data_ptr() == storage
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


def test_evaluation_leaves_the_queue_alone() -> None:
    loss = SimilarityQueueLoss(3, 4)
    loss(torch.randn(2, 3), torch.randn(2, 3))
    before = loss.rows()
    loss.eval()(torch.randn(2, 3), torch.randn(2, 3))
    assert torch.equal(loss.rows(), before)


def test_state_dict_carries_the_queue() -> None:
    loss, other = SimilarityQueueLoss(3, 4), SimilarityQueueLoss(3, 4)
    for _ in range(3):
        loss(torch.randn(3, 3), torch.randn(3, 3))
    other.load_state_dict(loss.state_dict())
    student, teacher = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(loss(student, teacher), other(student, teacher))
    assert torch.equal(loss.rows(), other.rows())


def test_rows_are_normalised_before_they_enter() -> None:
    loss = SimilarityQueueLoss(2, 3)
    loss.enqueue(torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(loss.rows(), torch.tensor([[0.6, 0.8]]))


def test_nan_does_not_enter_the_queue() -> None:
    loss = SimilarityQueueLoss(2, 3)
    with pytest.raises(NonFiniteError, match="teacher_embeddings"):
        loss.enqueue(torch.tensor([[float("nan"), 4.0]]))
    with pytest.raises(NonFiniteError, match="teacher_embeddings"):
        loss(torch.ones(1, 2), torch.tensor([[float("nan"), 4.0]]))
    assert loss.filled == 0


def test_the_whole_batch_is_compared() -> None:
    """Several ranks must gather: the match asks the loss."""
    assert Match(SimilarityQueueLoss(2, 3), "", "").relational


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ShapeError, match=r"embedding_dim=4 numbers a clip, got shape \(2, 3\).*adapter"):
        SimilarityQueueLoss(4, 8)(torch.randn(2, 3), torch.randn(2, 4))
    with pytest.raises(ShapeError, match=r"queue must hold rows as wide"):
        similarity_queue_loss(torch.randn(2, 3), torch.randn(2, 3), torch.randn(5, 4))
    with pytest.raises(ValueError, match="queue_size must be 1 or more, got 4 and 0"):
        SimilarityQueueLoss(4, 0)
    with pytest.raises(ValueError, match="student_temperature must be a finite number above 0"):
        SimilarityQueueLoss(4, 8, student_temperature=0.0)
    student = torch.randn(2, 3, requires_grad=True)
    loss = similarity_queue_loss(student, torch.randn(2, 3), torch.randn(5, 3))
    with pytest.raises(LimbeckError, match="cannot be differentiated twice"):
        torch.autograd.grad(loss, student, create_graph=True)
