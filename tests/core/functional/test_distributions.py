"""Losses on distributions over a vocabulary: against scipy, hand calculations, and the contract of every loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import Tensor

from limbeck_core import Distiller, Match, losses
from limbeck_core import functional as F
from limbeck_core.errors import NonFiniteError, ShapeError
from loss_contract import LossContract, randn

VOCABULARY = 7
INF = float("inf")
BETAS = [0.0, 0.1, 0.5, 0.9, 1.0]


def by_scipy(student: Tensor, teacher: Tensor, beta: float, temperature: float) -> np.ndarray:
    q, p = (softmax(z.numpy() / temperature, axis=-1) for z in (student, teacher))
    if beta == 0:
        return rel_entr(p, q).sum(-1)
    if beta == 1:
        return rel_entr(q, p).sum(-1)
    m = beta * p + (1 - beta) * q
    return beta * rel_entr(p, m).sum(-1) + (1 - beta) * rel_entr(q, m).sum(-1)


class JSDContract(LossContract):
    function = staticmethod(F.generalized_jsd_loss)
    module = losses.GeneralizedJSDLoss

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_logits": randn(batch, 3, VOCABULARY, seed=1, dtype=dtype),
            "teacher_logits": randn(batch, 3, VOCABULARY, seed=2, dtype=dtype),
        }

    def test_against_scipy(self) -> None:
        arguments = self.inputs()
        expected = by_scipy(*arguments.values(), self.hyper["beta"], self.hyper["temperature"])
        each = F.generalized_jsd_loss(**arguments, **self.hyper, reduction="none")
        np.testing.assert_allclose(each.numpy(), expected, rtol=1e-9)

    def test_compiles_whole(self) -> None:
        arguments = self.inputs()
        student = arguments["student_logits"]
        mask = torch.tensor([[True, False, True]]).repeat(4, 1)
        compiled = torch.compile(F.generalized_jsd_loss, fullgraph=True, backend="aot_eager")
        leaves = [student.clone().requires_grad_() for _ in range(2)]
        for loss, leaf in zip((F.generalized_jsd_loss, compiled), leaves, strict=True):
            loss(leaf, arguments["teacher_logits"], mask=mask, **self.hyper).backward()
        torch.testing.assert_close(leaves[1].grad, leaves[0].grad)


class TestForwardDivergence(JSDContract):
    hyper = {"beta": 0.0, "temperature": 2.0}


class TestReverseDivergence(JSDContract):
    hyper = {"beta": 1.0, "temperature": 2.0}


class TestGeneralizedJSDLoss(JSDContract):
    hyper = {"beta": 0.3, "temperature": 2.0}

    def test_half_is_symmetric(self) -> None:
        student, teacher = self.inputs().values()
        torch.testing.assert_close(F.generalized_jsd_loss(student, teacher), F.generalized_jsd_loss(teacher, student))

    def test_ends_are_not_limits(self) -> None:
        """Near 0 the formula falls in proportion to beta; its slope there is the forward divergence."""
        student, teacher = self.inputs().values()
        forward = F.generalized_jsd_loss(student, teacher, beta=0.0)
        near = F.generalized_jsd_loss(student, teacher, beta=1e-5)
        assert float(near) < 1e-3
        assert float(near / 1e-5) == pytest.approx(float(forward), rel=1e-3)

    def test_forward_covers_and_reverse_seeks_a_mode(self) -> None:
        """A student with one peak and a teacher with two: forward it spreads over both, reverse it takes one."""
        grid = torch.arange(-10.0, 11.0, dtype=torch.float64)
        peaks = torch.exp(-((grid - 5) ** 2)) + 0.7 * torch.exp(-((grid + 5) ** 2))
        teacher = peaks.log().unsqueeze(0)

        def fit(beta: float) -> tuple[float, float]:
            mean = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
            log_width = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
            optimizer = torch.optim.Adam([mean, log_width], lr=0.1)
            for _ in range(200):
                optimizer.zero_grad()
                student = (-0.5 * ((grid - mean) / log_width.exp()) ** 2).unsqueeze(0)
                F.generalized_jsd_loss(student, teacher, beta=beta).backward()
                optimizer.step()
            return mean.item(), log_width.exp().item()

        wide, narrow = fit(0.0), fit(1.0)
        assert abs(wide[0]) < 2
        assert wide[1] > 4
        assert abs(narrow[0] - 5) < 0.5
        assert narrow[1] < 3

    @pytest.mark.parametrize("beta", [-0.1, 1.1])
    def test_beta_outside_its_range_is_refused(self, beta: float) -> None:
        with pytest.raises(ValueError, match="beta must lie between 0.0 and 1.0"):
            F.generalized_jsd_loss(*self.inputs().values(), beta=beta)
        with pytest.raises(ValueError, match="beta must lie between 0.0 and 1.0"):
            losses.GeneralizedJSDLoss(beta)

    @pytest.mark.parametrize("beta", BETAS)
    def test_masked_tokens_are_as_if_absent(self, beta: float) -> None:
        """Even where they hold NaN; the gradient is clean too."""
        student, teacher = self.inputs().values()
        mask = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [1, 1, 0]], dtype=torch.bool)
        expected = F.generalized_jsd_loss(student[mask], teacher[mask], beta=beta)
        student = student.masked_fill(~mask.unsqueeze(-1), float("nan")).requires_grad_()
        got = F.generalized_jsd_loss(student, teacher.masked_fill(~mask.unsqueeze(-1), INF), beta=beta, mask=mask)
        got.backward()
        torch.testing.assert_close(got, expected)
        assert bool(torch.isfinite(student.grad).all())
        assert float(student.grad[~mask].abs().sum()) == 0.0

    @pytest.mark.parametrize("beta", BETAS)
    def test_no_token_is_a_differentiable_zero(self, beta: float) -> None:
        student, teacher = self.inputs().values()
        student.requires_grad_()
        loss = F.generalized_jsd_loss(student, teacher, beta=beta, mask=torch.zeros(4, 3))
        loss.backward()
        assert loss.item() == 0.0
        assert float(student.grad.abs().sum()) == 0.0

    @pytest.mark.parametrize("beta", BETAS)
    def test_an_id_banned_by_both_costs_nothing(self, beta: float) -> None:
        student, teacher = self.inputs().values()
        expected = F.generalized_jsd_loss(student, teacher, beta=beta)
        ban = torch.full((4, 3, 1), -INF, dtype=torch.float64)
        student = torch.cat([student, ban], dim=-1).requires_grad_()
        loss = F.generalized_jsd_loss(student, torch.cat([teacher, ban], dim=-1), beta=beta)
        loss.backward()
        torch.testing.assert_close(loss, expected)
        assert bool(torch.isfinite(student.grad).all())
        assert float(student.grad[..., -1].abs().sum()) == 0.0

    @pytest.mark.parametrize("beta", BETAS)
    def test_the_guarded_form_is_the_plain_one(self, beta: float) -> None:
        """One token with a ban sends all of them through the guards, here and whenever nothing can be read."""
        student, teacher = randn(3, VOCABULARY, seed=1), randn(3, VOCABULARY, seed=2)
        banned_student, banned_teacher = randn(1, VOCABULARY, seed=3), randn(1, VOCABULARY, seed=4)
        banned_student[0, 2], banned_teacher[0, 2] = -INF, -INF
        leaves = [student.clone().requires_grad_(), torch.cat([student, banned_student]).requires_grad_()]
        plain = F.generalized_jsd_loss(leaves[0], teacher, beta=beta, reduction="none")
        guarded = F.generalized_jsd_loss(leaves[1], torch.cat([teacher, banned_teacher]), beta=beta, reduction="none")
        plain.sum().backward()
        guarded.sum().backward()
        torch.testing.assert_close(guarded[:3], plain, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(leaves[1].grad[:3], leaves[0].grad, rtol=1e-12, atol=1e-12)

    def test_a_one_sided_ban_is_infinite_in_one_direction(self) -> None:
        student, teacher = randn(2, VOCABULARY), randn(2, VOCABULARY, seed=1)
        banned = student.clone()
        banned[1, 3] = -INF
        with pytest.raises(NonFiniteError, match=r"student_logits .* infinity in 1 of 2 rows \(first: row 1\)"):
            F.generalized_jsd_loss(banned, teacher, beta=0.0)
        with pytest.raises(NonFiniteError, match="teacher_logits .* infinity"):
            F.generalized_jsd_loss(teacher, banned, beta=1.0)
        assert 0 < float(F.generalized_jsd_loss(banned, teacher, beta=1.0)) < INF
        assert 0 < float(F.generalized_jsd_loss(teacher, banned, beta=0.0)) < INF
        assert 0 < float(F.generalized_jsd_loss(banned, teacher, beta=0.5)) < math.log(2)

    @pytest.mark.parametrize("beta", BETAS)
    @pytest.mark.parametrize("padded", ["student", "teacher"])
    def test_padding_of_one_vocabulary_is_cut_off(self, beta: float, padded: str) -> None:
        student, teacher = self.inputs().values()
        expected = F.generalized_jsd_loss(student, teacher, beta=beta)
        padding = 5.0 + randn(4, 3, 2, seed=5)
        if padded == "student":
            student = torch.cat([student, padding], dim=-1)
        else:
            teacher = torch.cat([teacher, padding], dim=-1)
        student.requires_grad_()
        loss = F.generalized_jsd_loss(student, teacher, beta=beta)
        loss.backward()
        torch.testing.assert_close(loss, expected)
        assert float(student.grad[..., VOCABULARY:].abs().sum()) == 0.0

    def test_padding_of_both_vocabularies_is_cut_off_on_request(self) -> None:
        student, teacher = self.inputs().values()
        torch.testing.assert_close(
            F.generalized_jsd_loss(student, teacher, vocabulary_size=5),
            F.generalized_jsd_loss(student[..., :5], teacher[..., :5]),
        )

    def test_a_vocabulary_larger_than_the_logits_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"at most the smaller vocabulary, 6 \(student 6, teacher 7\), got 7"):
            F.generalized_jsd_loss(randn(2, 6), randn(2, 7), vocabulary_size=7)
        with pytest.raises(ShapeError, match="share at least 2 ids"):
            F.generalized_jsd_loss(randn(2, 6), randn(2, 7), vocabulary_size=1)

    def test_heads_of_different_vocabularies_are_a_match(self) -> None:
        student, teacher = torch.nn.Linear(4, 6), torch.nn.Linear(4, 8)
        for loss in (losses.GeneralizedJSDLoss(), F.generalized_jsd_loss):
            distiller = Distiller(student, teacher, matches={"jsd": Match(loss, "", "")})
            distiller({"inputs": torch.randn(3, 4)})["loss/jsd"].backward()
            assert float(student.weight.grad.abs().sum()) > 0

    def test_float32_stays_accurate_over_a_large_vocabulary(self) -> None:
        student, teacher = 4 * randn(2, 50_000, seed=1), 4 * randn(2, 50_000, seed=2)
        for beta in BETAS:
            exact = F.generalized_jsd_loss(student, teacher, beta=beta)
            single = F.generalized_jsd_loss(student.float(), teacher.float(), beta=beta)
            torch.testing.assert_close(single.double(), exact, rtol=1e-5, atol=0)
