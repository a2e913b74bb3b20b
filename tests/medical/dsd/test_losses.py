"""The divergence between two heads: limits, gradients on both sides, and the size of the crop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck_core.functional import kl_divergence_loss
from limbeck_medical.dsd import SelfDistillationLoss, self_distillation_loss
from loss_contract import LossContract, randn


class TestSelfDistillationLoss(LossContract):
    function, module = staticmethod(self_distillation_loss), SelfDistillationLoss
    hyper = {"temperature": 3.0, "detach_teacher": True}

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_logits": randn(batch, 3, 2, 3, seed=0, dtype=dtype),
            "teacher_logits": randn(batch, 3, 2, 3, seed=1, dtype=dtype),
        }


class TestUndetached(TestSelfDistillationLoss):
    hyper = {"temperature": 3.0, "detach_teacher": False}

    def test_teacher_receives_no_gradient(self) -> None:
        """As the method has it, the teacher does; and by finite differences it is the right one."""
        student, teacher = randn(2, 3, 2, 2, seed=0), randn(2, 3, 2, 2, seed=1).requires_grad_()
        assert torch.autograd.gradcheck(lambda t: self_distillation_loss(student, t, temperature=2.0), [teacher])


def pair() -> tuple[Tensor, Tensor]:
    return randn(2, 4, 3, 4, 2, seed=0), randn(2, 4, 3, 4, 2, seed=1)


def test_value_is_that_of_the_detached_loss() -> None:
    student, teacher = pair()
    expected = kl_divergence_loss(student, teacher, temperature=3.0)
    for detach in (False, True):
        torch.testing.assert_close(self_distillation_loss(student, teacher, detach_teacher=detach), expected)


def test_by_hand() -> None:
    """One voxel, two classes, temperature 1: log 2 - H(1/4) of (3/4, 1/4) against even odds."""
    teacher = torch.tensor([[math.log(3.0), 0.0]]).reshape(1, 2, 1, 1)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert self_distillation_loss(torch.zeros(1, 2, 1, 1), teacher, temperature=1.0).item() == pytest.approx(expected)


def test_value_does_not_depend_on_the_size_of_the_crop() -> None:
    student, teacher = pair()
    tiled = [logits.repeat(1, 1, 2, 2, 2) for logits in (student, teacher)]
    torch.testing.assert_close(self_distillation_loss(*tiled), self_distillation_loss(student, teacher))


def test_gradient_keeps_its_size_at_high_temperature() -> None:
    sizes = []
    for temperature in (50.0, 500.0):
        student, teacher = pair()
        student.requires_grad_()
        self_distillation_loss(student, teacher, temperature=temperature).backward()
        sizes.append(float(student.grad.norm()))  # type: ignore[union-attr]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_masked_voxels_neither_count_nor_spread_nan() -> None:
    student, teacher = pair()
    mask = torch.ones(2, 3, 4, 2, dtype=torch.bool)
    mask[:, 0] = False
    spoilt = student.clone()
    spoilt[:, :, 0] = float("nan")
    spoilt.requires_grad_()
    loss = self_distillation_loss(spoilt, teacher, mask=mask)
    torch.testing.assert_close(loss, self_distillation_loss(student[:, :, 1:], teacher[:, :, 1:]))
    loss.backward()
    assert torch.isfinite(spoilt.grad).all()  # type: ignore[arg-type]
    empty = self_distillation_loss(student, teacher, mask=torch.zeros_like(mask))
    assert empty.item() == 0.0
