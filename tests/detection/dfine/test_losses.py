"""Losses of D-FINE: the distillation term keeps the contract of all losses; the others by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy, kl_div

from limbeck_core.errors import NonFiniteError, ShapeError, TargetError
from limbeck_detection.dfine.losses import (
    Balance,
    DecoupledDistillationFocalLoss,
    FineGrainedLocalizationLoss,
    VarifocalLoss,
    decoupled_distillation_focal_loss,
    fine_grained_localization_loss,
    varifocal_loss,
)
from limbeck_detection.dfine.regression import BinTarget
from loss_contract import LossContract, randn


class TestDecoupledDistillationFocalLoss(LossContract):
    function = staticmethod(decoupled_distillation_focal_loss)
    module = DecoupledDistillationFocalLoss
    hyper = {"temperature": 5.0}
    has_reduction = False

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_logits": randn(batch, 3, 9, seed=1, dtype=dtype),
            "teacher_logits": randn(batch, 3, 9, seed=2, dtype=dtype),
            "matched": torch.arange(batch * 3).reshape(batch, 3) % 3 == 0,
            "weight": randn(batch, 3, seed=3, dtype=dtype).sigmoid(),
        }

    def test_two_means_weighed_by_the_roots_of_their_sizes(self) -> None:
        arguments = self.inputs()
        student, teacher, matched, weight = arguments.values()
        divergence = kl_div((student / 5).log_softmax(-1), (teacher / 5).softmax(-1), reduction="none").sum(-1) * 25
        means = [(divergence * weight)[group].mean() for group in (matched, ~matched)]
        sizes = [math.sqrt(int(matched.sum())), math.sqrt(int((~matched).sum()))]
        expected = (sizes[0] * means[0] + sizes[1] * means[1]) / sum(sizes)
        torch.testing.assert_close(self.call(**arguments), expected)

    @pytest.mark.parametrize("all_matched", [True, False])
    def test_one_empty_group_leaves_the_mean_of_the_other(self, all_matched: bool) -> None:
        arguments = self.inputs()
        arguments["matched"] = torch.full((4, 3), all_matched)
        student, teacher, _, weight = arguments.values()
        divergence = kl_div((student / 5).log_softmax(-1), (teacher / 5).softmax(-1), reduction="none").sum(-1) * 25
        torch.testing.assert_close(self.call(**arguments), (divergence * weight).mean())

    def test_a_balance_from_elsewhere(self) -> None:
        arguments = self.inputs()
        only_matched = self.call(**arguments, balance=Balance(torch.tensor(2.0), torch.tensor(0.0)))
        dropped = {**arguments, "weight": arguments["weight"] * arguments["matched"]}
        again = self.call(**dropped, balance=Balance(torch.tensor(1.0), torch.tensor(0.0)))
        torch.testing.assert_close(only_matched, again)
        nothing = self.call(**arguments, balance=Balance(torch.tensor(0.0), torch.tensor(0.0)))
        assert float(nothing) == 0.0

    def test_the_weight_gets_no_gradient(self) -> None:
        arguments = self.inputs()
        weight = arguments["weight"].requires_grad_()
        student = arguments["student_logits"].requires_grad_()
        self.call(**{**arguments, "weight": weight, "student_logits": student}).backward()
        assert weight.grad is None
        assert student.grad is not None

    def test_identical_layers_give_exactly_nothing(self) -> None:
        arguments = self.inputs()
        student = arguments["teacher_logits"].clone().requires_grad_()
        loss = self.call(**{**arguments, "student_logits": student})
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert float(student.grad.abs().max()) < 1e-15

    @pytest.mark.parametrize("name", ["matched", "weight"])
    def test_one_value_an_item(self, name: str) -> None:
        arguments = self.inputs()
        with pytest.raises(ShapeError, match=rf"{name} must have one value an item, shape \(4, 3\), got \(4,\)"):
            self.call(**{**arguments, name: arguments[name][:, 0]})


def edges(count: int = 6, bins: int = 9) -> tuple[torch.Tensor, BinTarget]:
    right = randn(count, seed=5).sigmoid()
    left = torch.arange(count, dtype=torch.float64) % (bins - 1)
    return randn(count, bins, seed=4), BinTarget(left, right, 1 - right)


class TestFineGrainedLocalizationLoss:
    def test_two_cross_entropies(self) -> None:
        logits, target = edges()
        left = target.bins.long()
        expected = cross_entropy(logits, left, reduction="none") * target.weight_left
        expected = expected + cross_entropy(logits, left + 1, reduction="none") * target.weight_right
        torch.testing.assert_close(fine_grained_localization_loss(logits, target, reduction="none"), expected)
        weight = randn(6, seed=6).sigmoid()
        weighted = fine_grained_localization_loss(logits, target, weight=weight, reduction="sum")
        torch.testing.assert_close(weighted, (expected * weight).sum())
        torch.testing.assert_close(FineGrainedLocalizationLoss()(logits, target), expected.mean())

    def test_gradient(self) -> None:
        logits, target = edges(3)
        assert gradcheck(lambda x: fine_grained_localization_loss(x, target), [logits.requires_grad_()])

    def test_no_edge_is_a_differentiable_zero(self) -> None:
        logits, target = edges(0)
        loss = fine_grained_localization_loss(logits.requires_grad_(), target)
        loss.backward()
        assert float(loss) == 0.0

    def test_errors_say_what_does_not_fit(self) -> None:
        logits, target = edges()
        with pytest.raises(ShapeError, match=r"weight_left must have shape \(6,\), one value an edge, got \(5,\)"):
            fine_grained_localization_loss(logits, target._replace(weight_left=target.weight_left[:5]))
        with pytest.raises(ShapeError, match=r"logits must have shape \(N, bins\)"):
            fine_grained_localization_loss(logits[None], target)
        with pytest.raises(TargetError, match="another reg_max than 8"):
            fine_grained_localization_loss(logits, target._replace(bins=torch.full((6,), 8.0)))
        with pytest.raises(NonFiniteError, match="logits"):
            fine_grained_localization_loss(logits * float("nan"), target)


class TestVarifocalLoss:
    def test_by_hand(self) -> None:
        logits = torch.tensor([[2.0, -1.0], [0.5, 0.0]], dtype=torch.float64)
        loss = varifocal_loss(logits, torch.tensor([0, 2]), torch.tensor([0.6, 0.9]), reduction="none")
        p = logits.sigmoid()
        first = -0.6 * (0.6 * p[0, 0].log() + 0.4 * (1 - p[0, 0]).log()) - 0.75 * p[0, 1] ** 2 * (1 - p[0, 1]).log()
        second = -(0.75 * p[1] ** 2 * (1 - p[1]).log()).sum()
        # the quality is single precision
        torch.testing.assert_close(loss, torch.stack([first, second]), rtol=1e-6, atol=1e-6)
        twin = VarifocalLoss(reduction="sum")(logits, torch.tensor([0, 2]), torch.tensor([0.6, 0.9]))
        torch.testing.assert_close(twin, loss.sum())

    def test_factors_carry_no_gradient(self) -> None:
        logits = randn(4, 3).requires_grad_()
        quality = randn(4, seed=1).sigmoid().requires_grad_()
        varifocal_loss(logits, torch.tensor([0, 1, 3, 3]), quality).backward()
        assert quality.grad is None
        p, soft = logits.detach().sigmoid(), torch.zeros(4, 3, dtype=torch.float64)
        soft[0, 0], soft[1, 1] = quality.detach()[:2]
        weight = 0.75 * p**2
        weight[0, 0], weight[1, 1] = quality.detach()[:2]
        torch.testing.assert_close(logits.grad, weight * (p - soft) / 4)

    def test_nothing_to_score_is_a_differentiable_zero(self) -> None:
        logits = torch.zeros(0, 3, requires_grad=True)
        loss = varifocal_loss(logits, torch.zeros(0, dtype=torch.int64), torch.zeros(0))
        loss.backward()
        assert float(loss) == 0.0

    def test_errors_say_what_does_not_fit(self) -> None:
        logits = randn(2, 3)
        with pytest.raises(TargetError, match="classes from 0 to 2, or 3 for no object, got values from 0 to 4"):
            varifocal_loss(logits, torch.tensor([0, 4]), torch.zeros(2))
        with pytest.raises(TargetError, match="integer"):
            varifocal_loss(logits, torch.zeros(2), torch.zeros(2))
        with pytest.raises(ShapeError, match=r"one class a query, shape \(2,\)"):
            varifocal_loss(logits, torch.tensor([0]), torch.zeros(1))
        with pytest.raises(ShapeError, match="quality must have the shape of target"):
            varifocal_loss(logits, torch.tensor([0, 1]), torch.zeros(1))
        with pytest.raises(ValueError, match="alpha"):
            VarifocalLoss(alpha=-1.0)
