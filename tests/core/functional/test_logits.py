"""Losses on class scores: against scipy, hand calculations, and the contract of every loss."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, log_softmax

from limbeck_core import Distiller, Match, Tap, losses
from limbeck_core import functional as F
from limbeck_core.errors import NonFiniteError, ShapeError, TargetError
from loss_contract import LossContract, labels, randn

CLASSES = 5
INF = float("inf")


def soft(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Probabilities over axis 1."""
    return torch.softmax(randn(*shape, seed=seed), dim=1).to(dtype)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return rel_entr(p, q).sum(1)


class LogitsContract(LossContract):
    """Inputs shared by the losses on student logits, teacher logits and, where they take one, a label."""

    takes_target = True

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "student_logits": randn(batch, CLASSES, seed=1, dtype=dtype),
            "teacher_logits": randn(batch, CLASSES, seed=2, dtype=dtype),
        }
        return {**arguments, "target": labels(batch, CLASSES)} if self.takes_target else arguments


class TestKLDivergenceLoss(LogitsContract):
    function = staticmethod(F.kl_divergence_loss)
    module = losses.KLDivergenceLoss
    hyper = {"temperature": 4.0}
    takes_target = False

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
    def test_against_scipy(self, temperature: float) -> None:
        student, teacher = randn(6, 7, seed=3), randn(6, 7, seed=4)
        p, q = softmax(teacher.numpy() / temperature, axis=1), softmax(student.numpy() / temperature, axis=1)
        expected = temperature**2 * kl(p, q).mean()
        assert float(F.kl_divergence_loss(student, teacher, temperature=temperature)) == pytest.approx(expected)

    def test_one_hot_teacher_gives_cross_entropy(self) -> None:
        """log(1 + e^-2), by hand."""
        loss = F.kl_divergence_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[50.0, 0.0]]))
        assert loss.item() == pytest.approx(float(np.log1p(np.exp(-2))), rel=1e-6)

    def test_temperature_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="temperature must be a finite number above 0, got 0"):
            F.kl_divergence_loss(randn(2, 3), randn(2, 3), temperature=0)

    def test_one_class_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 2 classes"):
            F.kl_divergence_loss(randn(2, 1), randn(2, 1))

    def test_a_class_that_the_student_alone_bans_is_reported(self) -> None:
        student = randn(2, 3)
        student[1, 2] = -INF
        with pytest.raises(NonFiniteError, match=r"student_logits .* holds infinity in 1 of 2 rows \(first: row 1\)"):
            F.kl_divergence_loss(student, randn(2, 3, seed=1))

    def test_a_class_without_mass_in_the_teacher_may_be_banned_by_the_student(self) -> None:
        student = torch.tensor([[1.0, 0.0, -INF]], requires_grad=True)
        loss = F.kl_divergence_loss(student, torch.tensor([[1.0, 0.0, -1e4]]))
        loss.backward()
        assert loss.item() == 0.0
        assert bool(torch.isfinite(student.grad).all())

    def test_gradient_keeps_its_size_over_temperature(self) -> None:
        norms = []
        for temperature in (4.0, 8.0):
            student = (0.3 * randn(8, 10)).requires_grad_()
            F.kl_divergence_loss(student, 0.3 * randn(8, 10, seed=1), temperature=temperature).backward()
            norms.append(float(student.grad.norm()))
        assert norms[1] == pytest.approx(norms[0], rel=0.1)


class TestSoftTargetCrossEntropyLoss(LossContract):
    function = staticmethod(F.soft_target_cross_entropy_loss)
    module = losses.SoftTargetCrossEntropyLoss
    hyper = {"temperature": 2.0}
    zero_at_equality = False

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_logits": randn(batch, CLASSES, seed=1, dtype=dtype),
            "teacher_probabilities": soft(batch, CLASSES, seed=2, dtype=dtype),
        }

    def test_one_hot_target_is_cross_entropy(self) -> None:
        student, target = randn(6, 4), labels(6, 4)
        one_hot = torch.nn.functional.one_hot(target, 4).double()
        torch.testing.assert_close(F.soft_target_cross_entropy_loss(student, one_hot), cross_entropy(student, target))

    def test_differs_from_the_divergence_by_the_entropy_and_not_in_gradient(self) -> None:
        student, teacher, temperature = randn(6, 4).requires_grad_(), randn(6, 4, seed=1), 3.0
        p = torch.softmax(teacher / temperature, 1)
        soft_loss = F.soft_target_cross_entropy_loss(student, p, temperature=temperature)
        divergence = F.kl_divergence_loss(student, teacher, temperature=temperature)
        entropy = -(p * p.log()).sum(1).mean() * temperature**2
        torch.testing.assert_close(soft_loss, divergence + entropy)
        torch.testing.assert_close(
            torch.autograd.grad(soft_loss, student)[0], torch.autograd.grad(divergence, student)[0]
        )

    def test_logits_in_place_of_probabilities_are_refused(self) -> None:
        with pytest.raises(TargetError, match="probabilities that are >= 0 and sum to 1 .* apply softmax to logits"):
            F.soft_target_cross_entropy_loss(randn(3, 4), randn(3, 4, seed=1))

    def test_negative_probabilities_are_refused(self) -> None:
        with pytest.raises(TargetError, match=r"got an entry of -0.5"):
            F.soft_target_cross_entropy_loss(randn(1, 2), torch.tensor([[1.5, -0.5]], dtype=torch.float64))

    def test_masked_positions_need_no_probabilities(self) -> None:
        student, target = randn(2, 3), soft(2, 3)
        expected = F.soft_target_cross_entropy_loss(student[:1], target[:1])
        target[1] = 7.0
        loss = F.soft_target_cross_entropy_loss(student, target, mask=torch.tensor([True, False]))
        torch.testing.assert_close(loss, expected)


class TestProgressiveTarget:
    def test_weight_grows_linearly_to_its_final_value(self) -> None:
        weights = [F.progressive_weight(epoch, 4, final_weight=0.8) for epoch in range(4)]
        assert weights == pytest.approx([0.2, 0.4, 0.6, 0.8])

    @pytest.mark.parametrize("epoch", [-1, 300])
    def test_epoch_outside_the_run_is_refused(self, epoch: int) -> None:
        with pytest.raises(ValueError, match=f"epoch must lie between 0 and epochs - 1 = 299, got {epoch}"):
            F.progressive_weight(epoch, 300)

    def test_final_weight_above_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="final_weight must lie between 0"):
            F.progressive_weight(0, 3, final_weight=1.5)

    def test_no_past_is_plain_cross_entropy(self) -> None:
        student, target = randn(6, 4), labels(6, 4)
        blended = F.progressive_target(target, soft(6, 4), past_weight=0.0)
        torch.testing.assert_close(F.soft_target_cross_entropy_loss(student, blended), cross_entropy(student, target))

    def test_first_epoch_with_one_hot_past_is_cross_entropy_for_any_weight(self) -> None:
        student, target = randn(6, 4), labels(6, 4)
        past = torch.nn.functional.one_hot(target, 4).double()
        blended = F.progressive_target(target, past, past_weight=0.37)
        torch.testing.assert_close(F.soft_target_cross_entropy_loss(student, blended), cross_entropy(student, target))

    def test_gradient_of_the_target_class_against_cross_entropy(self) -> None:
        """The ratio is 1 - alpha (1 - q_y) / (1 - p_y), derived by hand."""
        student, target, past, alpha = randn(6, 4).requires_grad_(), labels(6, 4), soft(6, 4, seed=3), 0.6
        loss = F.soft_target_cross_entropy_loss(
            student, F.progressive_target(target, past, past_weight=alpha), reduction="sum"
        )
        row = torch.arange(6)
        got = torch.autograd.grad(loss, student)[0][row, target]
        p_y, q_y = torch.softmax(student.detach(), 1)[row, target], past[row, target]
        torch.testing.assert_close(got / (p_y - 1), 1 - alpha * (1 - q_y) / (1 - p_y))

    def test_two_weighted_losses_are_the_same_thing(self) -> None:
        """A task loss of weight 1 - alpha and a match on the past of weight alpha."""
        student, target, past = randn(6, 4), labels(6, 4), soft(6, 4, seed=3)
        whole = F.soft_target_cross_entropy_loss(student, F.progressive_target(target, past, past_weight=0.3))
        parts = 0.7 * cross_entropy(student, target) + 0.3 * F.soft_target_cross_entropy_loss(student, past)
        torch.testing.assert_close(whole, parts)

    def test_mixed_labels_are_blended_as_they_are(self) -> None:
        mixed, past = soft(3, 4), soft(3, 4, seed=1)
        torch.testing.assert_close(F.progressive_target(mixed, past, past_weight=0.25), 0.75 * mixed + 0.25 * past)

    def test_maps_have_their_classes_on_axis_1(self) -> None:
        target, past = labels(2 * 3 * 4, 5).reshape(2, 3, 4), soft(2, 5, 3, 4)
        blended = F.progressive_target(target, past, past_weight=0.5)
        torch.testing.assert_close(blended.sum(1), torch.ones(2, 3, 4, dtype=torch.float64))
        assert float(blended[1, int(target[1, 2, 3]), 2, 3]) >= 0.5

    def test_label_out_of_range_is_refused(self) -> None:
        with pytest.raises(TargetError, match="labels from 0 to 3"):
            F.progressive_target(torch.tensor([4]), soft(1, 4), past_weight=0.5)


class TestDecoupledKDLoss(LogitsContract):
    function = staticmethod(F.decoupled_kd_loss)
    module = losses.DecoupledKDLoss
    hyper = {"temperature": 2.0, "target_weight": 1.0, "non_target_weight": 3.0}

    def test_parts_make_up_plain_distillation(self) -> None:
        """KL = target part + (1 - p_ty) * non-target part: where the method starts from."""
        student, teacher, target = randn(6, 7, seed=1), randn(6, 7, seed=2), labels(6, 7)

        def part(a: float, b: float) -> Tensor:
            return F.decoupled_kd_loss(
                student, teacher, target, temperature=3.0, target_weight=a, non_target_weight=b, reduction="none"
            )

        rest = 1 - torch.softmax(teacher / 3.0, 1)[torch.arange(6), target]
        whole = F.kl_divergence_loss(student, teacher, temperature=3.0, reduction="none")
        torch.testing.assert_close(part(1, 0) + rest * part(0, 1), whole)

    def test_parts_against_scipy(self) -> None:
        student, teacher, target = randn(6, 7, seed=1), randn(6, 7, seed=2), labels(6, 7)
        p, q, row = softmax(teacher.numpy(), axis=1), softmax(student.numpy(), axis=1), np.arange(6)
        two = [np.stack([d[row, target], 1 - d[row, target]], axis=1) for d in (p, q)]
        others = [np.stack([np.delete(d[i], target[i]) / (1 - d[i, target[i]]) for i in row]) for d in (p, q)]
        expected = 0.5 * kl(*two).mean() + 2.5 * kl(*others).mean()
        loss = F.decoupled_kd_loss(student, teacher, target, temperature=1.0, target_weight=0.5, non_target_weight=2.5)
        assert loss.item() == pytest.approx(expected)

    def test_a_certain_teacher_does_not_underflow(self) -> None:
        """1 - p_y is e^-500 here, far below float32; the non-target part must still see 3 against 0 among the rest."""
        teacher = torch.tensor([[500.0, 3.0, 0.0]])
        student = torch.zeros(1, 3, requires_grad=True)
        loss = F.decoupled_kd_loss(
            student, teacher, torch.tensor([0]), temperature=1.0, target_weight=0.0, non_target_weight=1.0
        )
        loss.backward()
        p = softmax([3.0, 0.0])
        assert loss.item() == pytest.approx(float(rel_entr(p, [0.5, 0.5]).sum()), rel=1e-5)
        np.testing.assert_allclose(student.grad.numpy(), [[0.0, 0.5 - p[0], 0.5 - p[1]]], atol=1e-6)

    def test_soft_labels_are_refused(self) -> None:
        with pytest.raises(TargetError, match="integer class indices"):
            F.decoupled_kd_loss(randn(3, 4), randn(3, 4), soft(3, 4))

    def test_negative_weight_is_refused(self) -> None:
        with pytest.raises(ValueError, match="non_target_weight must be a finite number >= 0, got -1"):
            losses.DecoupledKDLoss(non_target_weight=-1)


class TestNormalizedKDLoss(LogitsContract):
    function = staticmethod(F.normalized_kd_loss)
    module = losses.NormalizedKDLoss
    hyper = {"temperature": 2.0, "non_target_weight": 1.5}
    zero_at_equality = False

    def test_decomposition_of_cross_entropy(self) -> None:
        """The soft cross-entropy is target part + middle term + (1 - p_ty) * non-target part."""
        student, teacher, target = randn(6, 7, seed=1), randn(6, 7, seed=2), labels(6, 7)
        row = torch.arange(6)
        p_s, p_t = torch.softmax(student, 1)[row, target], torch.softmax(teacher, 1)[row, target]
        target_part = F.normalized_kd_loss(student, teacher, target, non_target_weight=0.0, reduction="none")
        both = F.normalized_kd_loss(student, teacher, target, non_target_weight=1.0, reduction="none")
        whole = F.soft_target_cross_entropy_loss(student, torch.softmax(teacher, 1), reduction="none")
        middle = -(1 - p_t) * (1 - p_s).log()
        torch.testing.assert_close(target_part + middle + (1 - p_t) * (both - target_part), whole)
        torch.testing.assert_close(target_part, -p_t * p_s.log())

    def test_non_target_part_ignores_the_target_logit_and_constants(self) -> None:
        student, teacher, target = randn(6, 7, seed=1), randn(6, 7, seed=2), labels(6, 7)

        def non_target(s: Tensor, t: Tensor) -> Tensor:
            with_it = F.normalized_kd_loss(s, t, target, temperature=2.0, non_target_weight=1.0)
            return with_it - F.normalized_kd_loss(s, t, target, temperature=2.0, non_target_weight=0.0)

        expected = non_target(student, teacher)
        bump = torch.nn.functional.one_hot(target, 7) * 3.0
        torch.testing.assert_close(non_target(student + bump, teacher - bump), expected)
        torch.testing.assert_close(non_target(student + 5.0, teacher - 2.0), expected)

    def test_soft_label_counts_by_its_largest_entry(self) -> None:
        student, teacher, mixed = randn(6, 7, seed=1), randn(6, 7, seed=2), soft(6, 7, seed=3)
        torch.testing.assert_close(
            F.normalized_kd_loss(student, teacher, mixed), F.normalized_kd_loss(student, teacher, mixed.argmax(1))
        )

    def test_two_classes_have_no_non_target_part(self) -> None:
        student, teacher, target = randn(4, 2, seed=1), randn(4, 2, seed=2), labels(4, 2)
        torch.testing.assert_close(
            F.normalized_kd_loss(student, teacher, target, non_target_weight=9.0),
            F.normalized_kd_loss(student, teacher, target, non_target_weight=0.0),
        )


WEAK_WEIGHT, WEAK_BIAS = randn(CLASSES, 3, seed=8), randn(CLASSES, seed=9)


def uskd_on_features(student_logits: Tensor, student_features: Tensor, target: Tensor, **hyper: Any) -> Tensor:
    """The function behind a fixed weak head, to be held against the module that owns one."""
    if student_features.ndim != 2 or student_features.shape[1] != 3:
        raise ShapeError("student_features")
    weight, bias = WEAK_WEIGHT.to(student_features), WEAK_BIAS.to(student_features)
    return F.customized_soft_label_loss(student_logits, linear(student_features, weight, bias), target, **hyper)


class TestCustomizedSoftLabelLoss(LossContract):
    function = staticmethod(uskd_on_features)
    module = losses.CustomizedSoftLabelLoss
    hyper = {"target_weight": 0.7, "non_target_weight": 0.4, "weak_weight": 0.3}
    zero_at_equality = False
    teacher_prefix = "student_features"

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_logits": randn(batch, CLASSES, seed=1, dtype=dtype),
            "student_features": randn(batch, 3, seed=2, dtype=dtype),
            "target": labels(batch, CLASSES),
        }

    def build(self, **extra: Any) -> torch.nn.Module:
        module = losses.CustomizedSoftLabelLoss(3, CLASSES, **self.hyper, **extra).double()
        with torch.no_grad():
            module.weak_head.weight.copy_(WEAK_WEIGHT)
            module.weak_head.bias.copy_(WEAK_BIAS)
        return module

    def test_gradcheck(self) -> None:
        """The soft labels are constants: the gradient is that of a loss with the labels held fixed."""
        arguments = self.inputs()
        student = arguments["student_logits"].requires_grad_()
        features = arguments["student_features"].requires_grad_()
        target = arguments["target"]
        got = torch.autograd.grad(self.call(**arguments), (student, features))
        weak = linear(features, WEAK_WEIGHT, WEAK_BIAS)
        index = target.unsqueeze(1)
        p_labels = F.customized_target_labels(student, target)
        z_labels = F.zipf_soft_labels(F.class_rank_scores(student, weak, target), target)
        others = log_softmax(student.scatter(1, index, -INF), 1).masked_fill(z_labels == 0, 0.0)
        loss = (
            0.7 * -(p_labels * log_softmax(student, 1).gather(1, index)).sum(1).mean()
            + 0.4 * -(z_labels * others).sum(1).mean()
            + 0.3 * cross_entropy(weak, target, label_smoothing=0.1)
        )
        torch.testing.assert_close(self.call(**arguments), loss)
        torch.testing.assert_close(got, torch.autograd.grad(loss, (student, features)))
        assert not p_labels.requires_grad
        assert not z_labels.requires_grad

    def test_teacher_receives_no_gradient(self) -> None:
        """There is no teacher; instead, the weak head learns from its own term alone."""
        module = self.build()
        module.weak_weight = 0.0
        module(**self.inputs()).backward()
        assert float(module.weak_head.weight.grad.abs().sum()) == 0.0

    def test_misspelt_reduction_is_refused(self) -> None:
        with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', got 'avg'"):
            self.call(**self.inputs(), reduction="avg")
        with pytest.raises(ValueError, match="reduction must be 'none', 'mean' or 'sum', got 'avg'"):
            losses.CustomizedSoftLabelLoss(3, CLASSES, reduction="avg")

    def test_nan_is_named_not_spread(self) -> None:
        for name in ("student_logits", "weak_logits"):
            both = {"student_logits": randn(4, CLASSES), "weak_logits": randn(4, CLASSES, seed=1)}
            both[name][1] = float("nan")
            with pytest.raises(NonFiniteError, match=name):
                F.customized_soft_label_loss(**both, target=labels(4, CLASSES))

    def test_shape_mismatch_names_both_shapes(self) -> None:
        with pytest.raises(ShapeError, match=r"student_logits and weak_logits .* \(4, 5\) and \(3, 5\)"):
            F.customized_soft_label_loss(randn(4, CLASSES), randn(3, CLASSES), labels(4, CLASSES))
        with pytest.raises(ShapeError, match=r"feature_channels=3 channels on axis 1, got shape \(4, 7\)"):
            self.build()(randn(4, CLASSES), randn(4, 7), labels(4, CLASSES))

    def test_errors_are_ours(self) -> None:
        with pytest.raises(ShapeError, match=r"student_logits must have shape \(N, C\)"):
            F.customized_soft_label_loss(randn(4), randn(4), labels(4, CLASSES))
        with pytest.raises(ShapeError, match=r"student_features must have shape \(N, D\)"):
            self.build()(randn(4, CLASSES), randn(4), labels(4, CLASSES))

    def test_maps_are_averaged_over_space(self) -> None:
        maps, target = randn(4, 3, 2, 5), labels(4, CLASSES)
        module = self.build()
        logits = randn(4, CLASSES, seed=1)
        torch.testing.assert_close(module(logits, maps, target), module(logits, maps.mean((2, 3)), target))

    def test_by_hand(self) -> None:
        """Numpy, sample by sample, from the equations of the paper."""
        z, w, y = randn(5, 6, seed=1).numpy(), randn(5, 6, seed=2).numpy(), labels(5, 6).numpy()
        p, v = softmax(z, axis=1), softmax(w, axis=1)
        mean_squared = np.mean([p[n, y[n]] ** 2 for n in range(5)])
        total = 0.0
        for n in range(5):
            label = p[n, y[n]] ** 2 + 1 - mean_squared
            rank_key = v[n] / (1 - v[n, y[n]] + 1e-6) + p[n] / (1 - p[n, y[n]] + 1e-6)
            rank = 1 + np.argsort(np.argsort(-rank_key))
            others = np.arange(6) != y[n]
            zipf = (1 / rank[others]) / (1 / rank[others]).sum()
            smooth = np.where(others, 0.1 / 6, 0.9 + 0.1 / 6)
            total += -0.7 * label * np.log(p[n, y[n]])
            total += -0.4 * (zipf * np.log(p[n][others] / (1 - p[n, y[n]]))).sum()
            total += -0.3 * (smooth * np.log(v[n])).sum()
        loss = F.customized_soft_label_loss(torch.from_numpy(z), torch.from_numpy(w), torch.from_numpy(y), **self.hyper)
        assert loss.item() == pytest.approx(total / 5)

    def test_as_a_match_it_reads_the_student_twice(self) -> None:
        """Its second side holds features, whose width says nothing about class lists."""
        student = torch.nn.Sequential(
            OrderedDict(body=torch.nn.Linear(7, 3), act=torch.nn.Tanh(), fc=torch.nn.Linear(3, CLASSES))
        )
        match = Match(losses.CustomizedSoftLabelLoss(3, CLASSES), "fc", Tap("body", of="student"))
        distiller = Distiller(student, None, matches={"uskd": match})
        distiller({"inputs": torch.randn(4, 7), "targets": labels(4, CLASSES)})["loss/uskd"].backward()
        assert all(float(p.grad.abs().sum()) > 0 for p in distiller.parameters())

    def test_one_sample_keeps_its_label(self) -> None:
        mixed = torch.tensor([[0.3, 0.7, 0.0, 0.0]], dtype=torch.float64)
        got = F.customized_target_labels(randn(1, 4), mixed)
        torch.testing.assert_close(got, torch.tensor([[0.7, 0.3]], dtype=torch.float64))

    def test_a_second_label_of_zero_weight_gets_nothing(self) -> None:
        unmixed = torch.nn.functional.one_hot(torch.tensor([2, 0]), 4).double()
        assert F.customized_target_labels(randn(2, 4), unmixed)[:, 1].tolist() == [0.0, 0.0]

    def test_soft_labels_take_both_classes_out_of_the_rank(self) -> None:
        mixed = torch.tensor([[0.3, 0.0, 0.7, 0.0]], dtype=torch.float64)
        got = F.zipf_soft_labels(torch.tensor([[0.4, 0.1, 0.3, 0.2]], dtype=torch.float64), mixed)
        torch.testing.assert_close(got, torch.tensor([[0.0, 3 / 7, 0.0, 4 / 7]], dtype=torch.float64))

    def test_soft_labels_need_three_classes(self) -> None:
        with pytest.raises(ShapeError, match="at least 3 classes on axis 1 for soft labels"):
            F.customized_soft_label_loss(randn(2, 2), randn(2, 2), soft(2, 2))

    def test_banned_classes_are_not_ranked(self) -> None:
        student = randn(3, 6, seed=1)
        student[:, 4] = -INF
        leaf = student.requires_grad_()
        target = torch.tensor([0, 1, 2])
        loss = F.customized_soft_label_loss(leaf, randn(3, 6, seed=2), target)
        loss.backward()
        assert bool(torch.isfinite(leaf.grad).all())
        assert float(leaf.grad[:, 4].abs().sum()) == 0.0


class TestWeightedSoftLabelLoss(LogitsContract):
    function = staticmethod(F.weighted_soft_label_loss)
    module = losses.WeightedSoftLabelLoss
    hyper = {"temperature": 2.0}
    zero_at_equality = False

    def test_gradcheck(self) -> None:
        """The weight is a constant: with it held fixed the gradient is that of the soft cross-entropy."""
        arguments = self.inputs()
        student = arguments["student_logits"].requires_grad_()
        teacher, target = arguments["teacher_logits"], arguments["target"]
        got = torch.autograd.grad(self.call(**arguments), student)[0]
        hard = [cross_entropy(z.detach(), target, reduction="none") for z in (student, teacher)]
        weight = 1 - torch.exp(-hard[0] / hard[1])
        soft_loss = F.soft_target_cross_entropy_loss(
            student, torch.softmax(teacher / 2.0, 1), temperature=2.0, mask=weight, reduction="sum"
        )
        torch.testing.assert_close(got, torch.autograd.grad(soft_loss / 4, student)[0], rtol=1e-6, atol=1e-9)

    def test_against_scipy(self) -> None:
        student, teacher, target = randn(6, 7, seed=1), randn(6, 7, seed=2), labels(6, 7)
        row = np.arange(6)
        hard = [-np.log(softmax(z.numpy(), axis=1)[row, target]) for z in (student, teacher)]
        p, q = (softmax(z.numpy() / 2, axis=1) for z in (teacher, student))
        expected = 4 * ((1 - np.exp(-hard[0] / hard[1])) * -(p * np.log(q)).sum(1)).mean()
        assert float(F.weighted_soft_label_loss(student, teacher, target)) == pytest.approx(expected, rel=1e-6)

    def test_a_student_that_knows_is_left_alone(self) -> None:
        student, teacher = torch.tensor([[20.0, 0.0, 0.0]]), torch.tensor([[0.5, 0.0, 0.0]])
        assert float(F.weighted_soft_label_loss(student, teacher, torch.tensor([0]))) < 1e-6


class TestDISTLoss(LogitsContract):
    function = staticmethod(F.dist_loss)
    module = losses.DISTLoss
    hyper = {"temperature": 2.0, "inter_weight": 1.0, "intra_weight": 0.5}
    takes_target = False
    has_reduction = False

    def test_zero_with_finite_gradient_at_equality(self) -> None:
        """Zero but for the 1e-8 in the denominator."""
        teacher = randn(6, CLASSES)
        student = teacher.clone().requires_grad_()
        loss = F.dist_loss(student, teacher)
        loss.backward()
        assert abs(loss.item()) < 1e-5
        assert float(student.grad.abs().max()) < 1e-5

    def test_against_numpy_correlation(self) -> None:
        student, teacher = randn(6, 4, seed=1), randn(6, 4, seed=2)
        p, q = (softmax(z.numpy() / 3, axis=1) for z in (teacher, student))
        inter = 1 - np.mean([np.corrcoef(p[n], q[n])[0, 1] for n in range(6)])
        intra = 1 - np.mean([np.corrcoef(p[:, c], q[:, c])[0, 1] for c in range(4)])
        loss = F.dist_loss(student, teacher, temperature=3.0, inter_weight=2.0, intra_weight=0.5)
        assert loss.item() == pytest.approx(9 * (2 * inter + 0.5 * intra), rel=1e-6)

    def test_order_of_the_batch_does_not_matter(self) -> None:
        student, teacher, order = randn(6, 4, seed=1), randn(6, 4, seed=2), torch.tensor([3, 1, 5, 0, 2, 4])
        torch.testing.assert_close(F.dist_loss(student[order], teacher[order]), F.dist_loss(student, teacher))

    def test_one_sample_has_no_relation_to_others(self) -> None:
        student = randn(1, 4, seed=1).requires_grad_()
        loss = F.dist_loss(student, randn(1, 4, seed=2), inter_weight=0.0)
        loss.backward()
        assert loss.item() == 0.0

    def test_one_counted_position_has_no_relation_to_others(self) -> None:
        student = randn(3, 4, seed=1).requires_grad_()
        loss = F.dist_loss(student, randn(3, 4, seed=2), inter_weight=0.0, mask=torch.tensor([False, True, False]))
        loss.backward()
        assert loss.item() == 0.0

    def test_constant_rows_correlate_with_nothing(self) -> None:
        student = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
        loss = F.dist_loss(student, torch.zeros(4, 3, dtype=torch.float64))
        loss.backward()
        assert loss.item() == 2.0
        assert bool(torch.isfinite(student.grad).all())

    def test_whole_weights_repeat_positions(self) -> None:
        student, teacher = randn(3, 4, seed=1), randn(3, 4, seed=2)
        repeated = torch.tensor([0, 1, 1, 2, 2, 2])
        torch.testing.assert_close(
            F.dist_loss(student, teacher, mask=torch.tensor([1, 2, 3])),
            F.dist_loss(student[repeated], teacher[repeated]),
            rtol=1e-6,
            atol=0,
        )


def _soft_of_logits(student_logits: Tensor, teacher_logits: Tensor, **options: Any) -> Tensor:
    return F.soft_target_cross_entropy_loss(student_logits, torch.softmax(teacher_logits, 1), **options)


MASKABLE: list[tuple[Callable[..., Tensor], bool]] = [
    (F.kl_divergence_loss, False),
    (_soft_of_logits, False),
    (F.decoupled_kd_loss, True),
    (F.normalized_kd_loss, True),
    (F.weighted_soft_label_loss, True),
    (F.dist_loss, False),
]
maskable = pytest.mark.parametrize(("loss", "takes_target"), MASKABLE, ids=lambda v: getattr(v, "__name__", ""))


@maskable
class TestPositions:
    """What all losses on logits do with maps, masks and banned classes."""

    def maps(self, takes_target: bool) -> tuple[Tensor, Tensor, dict[str, Any]]:
        student, teacher = randn(2, CLASSES, 3, 2, seed=1), randn(2, CLASSES, 3, 2, seed=2)
        return student, teacher, {"target": labels(12, CLASSES).reshape(2, 3, 2)} if takes_target else {}

    def flat(self, tensor: Tensor) -> Tensor:
        return tensor.movedim(1, -1).flatten(0, -2) if tensor.ndim == 4 else tensor.flatten()

    def test_maps_equal_their_positions_as_samples(self, loss: Callable[..., Tensor], takes_target: bool) -> None:
        student, teacher, rest = self.maps(takes_target)
        flat = loss(self.flat(student), self.flat(teacher), **{k: v.flatten() for k, v in rest.items()})
        torch.testing.assert_close(loss(student, teacher, **rest), flat)

    def test_masked_positions_are_as_if_absent(self, loss: Callable[..., Tensor], takes_target: bool) -> None:
        """Even where they hold NaN and a label that is no class; the gradient is clean too."""
        student, teacher, rest = self.maps(takes_target)
        mask = torch.tensor([[[1, 0], [1, 1], [0, 1]], [[0, 0], [1, 1], [1, 1]]], dtype=torch.bool)
        expected = loss(
            self.flat(student)[mask.flatten()],
            self.flat(teacher)[mask.flatten()],
            **{k: v.flatten()[mask.flatten()] for k, v in rest.items()},
        )
        dropped = ~mask.unsqueeze(1)
        student = student.masked_fill(dropped, float("nan")).requires_grad_()
        teacher = teacher.masked_fill(dropped, float("nan") if loss is not _soft_of_logits else 0.0)
        rest = {k: v.masked_fill(~mask, -100) for k, v in rest.items()}
        got = loss(student, teacher, mask=mask, **rest)
        torch.testing.assert_close(got, expected)
        got.backward()
        assert bool(torch.isfinite(student.grad).all())
        assert float(student.grad.masked_select(dropped).abs().sum()) == 0.0

    def test_nothing_counted_is_a_differentiable_zero(self, loss: Callable[..., Tensor], takes_target: bool) -> None:
        student, teacher, rest = self.maps(takes_target)
        student.requires_grad_()
        value = loss(student, teacher, mask=torch.zeros(2, 3, 2, dtype=torch.bool), **rest)
        value.backward()
        assert value.item() == 0.0
        assert float(student.grad.abs().sum()) == 0.0

    def test_a_class_banned_by_both_gets_no_gradient(self, loss: Callable[..., Tensor], takes_target: bool) -> None:
        student, teacher = randn(4, CLASSES, seed=1), randn(4, CLASSES, seed=2)
        student[:, 2], teacher[:, 2] = -INF, -INF
        student.requires_grad_()
        value = loss(student, teacher, **({"target": torch.tensor([0, 1, 3, 4])} if takes_target else {}))
        value.backward()
        assert bool(torch.isfinite(value))
        assert bool(torch.isfinite(student.grad).all())
        assert float(student.grad[:, 2].abs().sum()) == 0.0

    def test_mask_of_another_shape_is_refused(self, loss: Callable[..., Tensor], takes_target: bool) -> None:
        student, teacher, rest = self.maps(takes_target)
        with pytest.raises(ShapeError, match=r"mask .* shape \(2, 3, 2\), got \(2, 3\)"):
            loss(student, teacher, mask=torch.ones(2, 3), **rest)

    def test_compiles_whole(self, loss: Callable[..., Tensor], takes_target: bool) -> None:
        student, teacher, rest = self.maps(takes_target)
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        first, second = student.clone().requires_grad_(), student.clone().requires_grad_()
        mask = torch.ones(2, 3, 2, dtype=torch.bool)
        mask[0, 0, 0] = False
        expected, got = loss(first, teacher, mask=mask, **rest), compiled(second, teacher, mask=mask, **rest)
        expected.backward()
        got.backward()
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(second.grad, first.grad)


@pytest.mark.parametrize("loss", [F.kl_divergence_loss, _soft_of_logits])
def test_banning_a_class_equals_leaving_it_out(loss: Callable[..., Tensor]) -> None:
    student, teacher = randn(4, CLASSES, seed=1), randn(4, CLASSES, seed=2)
    banned = [torch.cat([z, torch.full((4, 1), -INF, dtype=z.dtype)], dim=1) for z in (student, teacher)]
    torch.testing.assert_close(loss(*banned), loss(student, teacher))
