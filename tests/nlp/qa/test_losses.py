"""Rank-weighted self-distillation of spans: precision by hand, limits, gradients, masks, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck_core.errors import ShapeError
from limbeck_core.functional import kl_divergence_loss
from limbeck_nlp.qa import SpanDistillationLoss, average_precision_at_k, span_distillation_loss
from loss_contract import LossContract, randn


def ranked(*order: int, length: int = 12) -> Tensor:
    """Logits whose likeliest positions are those of ``order``, in turn."""
    logits = torch.full((1, length), -10.0)
    for rank, position in enumerate(order):
        logits[0, position] = 10.0 - rank
    return logits


def precision(logits: Tensor, truth: int, **options: Any) -> float:
    return average_precision_at_k(logits, torch.tensor([truth]), **options).item()


def test_precision_by_hand() -> None:
    near = {"k": 3, "tolerance": 2}  # hits lie in [truth - 2, truth + 2)
    assert precision(ranked(9, 4, 5), 5, **near) == pytest.approx(1 / 2)  # relevance 0, 1, 1
    assert precision(ranked(9, 4, 5), 5, ap_mode="full", **near) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert precision(ranked(9, 8, 11), 5, **near) == 0
    assert precision(ranked(9, 5), 5, k=3, tolerance=0) == pytest.approx(1 / 2)
    assert precision(ranked(9, 5), -100, k=3) == 0


@pytest.mark.parametrize("position", range(20))
def test_the_window_is_half_open(position: int) -> None:
    hit = precision(ranked(position, length=20), 10, k=1, tolerance=5)
    assert hit == (1.0 if 5 <= position <= 14 else 0.0)


def test_positions_outside_of_the_mask_are_no_hits() -> None:
    mask = torch.zeros(1, 12, dtype=torch.bool)
    mask[0, :3] = True
    # only three positions are left of ten asked for
    value = average_precision_at_k(ranked(5, 1, 0), torch.tensor([5]), k=10, tolerance=1, mask=mask)
    assert value.item() == 0
    assert average_precision_at_k(ranked(5, 1, 0), torch.tensor([0]), k=10, tolerance=0, mask=mask).item() == 0.5


class TestSpanDistillationLoss(LossContract):
    function = staticmethod(span_distillation_loss)
    module = SpanDistillationLoss
    sequences = True
    hyper = {"k": 4, "tolerance": 2, "temperature": 3.0}

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_logits0": randn(batch, 9, seed=0, dtype=dtype),
            "student_logits1": randn(batch, 9, seed=1, dtype=dtype),
            "teacher_logits0": randn(batch, 9, seed=2, dtype=dtype),
            "teacher_logits1": randn(batch, 9, seed=3, dtype=dtype),
            "target": torch.tensor([[1, 3], [0, 0], [5, 6], [8, 8]])[:batch],
        }


@pytest.fixture
def spans() -> tuple[list[Tensor], list[Tensor], Tensor]:
    student = [randn(3, 7, seed=0), randn(3, 7, seed=1)]
    teacher = [randn(3, 7, seed=2), randn(3, 7, seed=3)]
    return student, teacher, torch.tensor([[1, 2], [3, 3], [-100, -100]])


def test_without_weighting_it_is_the_mean_divergence(spans: Any) -> None:
    student, teacher, target = spans
    expected = sum(kl_divergence_loss(s, t, temperature=2.0) for s, t in zip(student, teacher, strict=True)) / 2
    torch.testing.assert_close(span_distillation_loss(student, teacher, target, weighting="none"), expected)
    both = [span_distillation_loss(student, teacher, target, weighting="none", direction=d) for d in
            ("forward", "reverse", "symmetric")]  # fmt: skip
    torch.testing.assert_close(both[0] + both[1], both[2])
    swapped = span_distillation_loss(teacher, student, target, weighting="none")
    torch.testing.assert_close(both[1], swapped)


def test_the_batch_is_trusted_as_a_whole_and_samples_each(spans: Any) -> None:
    student, teacher, target = spans
    plain = span_distillation_loss(student, teacher, target, weighting="none", reduction="none")
    each = torch.stack([average_precision_at_k(t, target[:, i], k=2, tolerance=0) for i, t in enumerate(teacher)])
    alpha = each.mean(0)
    options: dict[str, Any] = {"k": 2, "tolerance": 0, "reduction": "none"}
    torch.testing.assert_close(span_distillation_loss(student, teacher, target, **options), plain * alpha.mean())
    torch.testing.assert_close(
        span_distillation_loss(student, teacher, target, weighting="sample", **options), plain * alpha
    )
    module = SpanDistillationLoss(k=2, tolerance=0)
    module(student, teacher, target)
    assert module.coefficient is not None
    assert module.coefficient.item() == pytest.approx(alpha.mean().item())


def test_a_wrong_teacher_teaches_nothing(spans: Any) -> None:
    student, _, target = spans
    wrong = [ranked(6, 5, length=7).expand(3, -1).double()] * 2
    assert span_distillation_loss(student, wrong, target, k=2, tolerance=1).item() == 0


def test_padding_changes_nothing(spans: Any) -> None:
    student, teacher, target = spans
    mask = torch.ones(3, 7, dtype=torch.bool)

    def padded(logits: list[Tensor]) -> list[Tensor]:
        return [torch.cat([side, torch.full((3, 2), 9.0, dtype=side.dtype)], 1) for side in logits]

    longer = torch.cat([mask, torch.zeros(3, 2, dtype=torch.bool)], 1)
    for direction in ("forward", "reverse"):
        torch.testing.assert_close(
            span_distillation_loss(padded(student), padded(teacher), target, mask=longer, direction=direction),
            span_distillation_loss(student, teacher, target, direction=direction),
        )


def test_a_row_without_any_position_counts_nothing(spans: Any) -> None:
    student, teacher, target = spans
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[2] = False
    inputs = [side.clone().requires_grad_() for side in student]
    loss = span_distillation_loss(inputs, teacher, target, mask=mask)
    loss.backward()
    expected = span_distillation_loss([s[:2] for s in student], [t[:2] for t in teacher], target[:2])
    torch.testing.assert_close(loss.detach(), expected)
    assert inputs[0].grad is not None
    assert inputs[0].grad[2].abs().sum() == 0
    nothing = span_distillation_loss(inputs, teacher, target, mask=torch.zeros(3, 7))
    assert nothing.item() == 0
    assert nothing.requires_grad


def test_what_does_not_fit_is_refused(spans: Any) -> None:
    student, teacher, target = spans
    with pytest.raises(ShapeError, match="student_logits must be two tensors"):
        span_distillation_loss(student[:1], teacher, target)
    with pytest.raises(ShapeError, match=r"target must hold start and end of each row, shape \(3, 2\)"):
        span_distillation_loss(student, teacher, target[:, 0])
    with pytest.raises(ShapeError, match="one position a row"):
        average_precision_at_k(teacher[0], target)
    with pytest.raises(ValueError, match="direction must be one of forward, reverse, symmetric"):
        SpanDistillationLoss(direction="up")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ap_mode must be one of"):
        SpanDistillationLoss(ap_mode="mrr")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k must be at least 1"):
        average_precision_at_k(teacher[0], target[:, 0], k=0)
