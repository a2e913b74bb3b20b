"""Losses on class scores: against scipy, hand calculations, and the contract of every loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from limbeck_core import functional as F
from limbeck_core import losses
from loss_contract import LossContract, randn


class TestKLDivergenceLoss(LossContract):
    function = staticmethod(F.kl_divergence_loss)
    module = losses.KLDivergenceLoss
    hyper = {"temperature": 4.0}

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_logits": randn(batch, 5, seed=1, dtype=dtype),
            "teacher_logits": randn(batch, 5, seed=2, dtype=dtype),
        }

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
    def test_against_scipy(self, temperature: float) -> None:
        student, teacher = randn(6, 7, seed=3), randn(6, 7, seed=4)
        p, q = softmax(teacher.numpy() / temperature, axis=1), softmax(student.numpy() / temperature, axis=1)
        expected = temperature**2 * rel_entr(p, q).sum(1).mean()
        assert float(F.kl_divergence_loss(student, teacher, temperature=temperature)) == pytest.approx(expected)

    def test_one_hot_teacher_gives_cross_entropy(self) -> None:
        """log(1 + e^-2), by hand."""
        loss = F.kl_divergence_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[50.0, 0.0]]))
        assert float(loss) == pytest.approx(float(np.log1p(np.exp(-2))), rel=1e-6)

    def test_temperature_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="temperature must be a finite number above 0, got 0"):
            F.kl_divergence_loss(randn(2, 3), randn(2, 3), temperature=0)

    def test_one_class_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 2 classes"):
            F.kl_divergence_loss(randn(2, 1), randn(2, 1))
