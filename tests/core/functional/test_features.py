"""Losses on hidden features: against scipy, numpy, hand calculations, and the contract of every loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine
from scipy.special import rel_entr, softmax
from scipy.stats import truncnorm
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from limbeck_core import functional as F
from limbeck_core import losses
from limbeck_core.errors import NonFiniteError, ShapeError
from loss_contract import LossContract, randn


def pair(*shape: int, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    return {
        "student_features": randn(*shape, seed=1, dtype=dtype),
        "teacher_features": randn(*shape, seed=2, dtype=dtype),
    }


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    leaf = at.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    return found


class MapContract(LossContract):
    """A loss of two maps of one shape."""

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return pair(batch, 3, 2, 3, dtype=dtype)


class TestHintLoss(MapContract):
    function = staticmethod(F.hint_loss)
    module = losses.HintLoss

    @pytest.mark.parametrize("shape", [(4, 5), (2, 3, 6), (2, 3, 4, 5), (2, 3, 2, 3, 4)])
    def test_mean_over_every_element(self, shape: tuple[int, ...]) -> None:
        arguments = pair(*shape)
        expected = np.mean((arguments["student_features"].numpy() - arguments["teacher_features"].numpy()) ** 2)
        assert float(F.hint_loss(**arguments)) == pytest.approx(expected)
        assert F.hint_loss(**arguments, reduction="none").shape == shape[:1] + shape[2:]

    def test_mask_selects_positions(self) -> None:
        arguments = pair(2, 3, 4)
        mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1]])
        squared = (arguments["student_features"] - arguments["teacher_features"]).numpy() ** 2
        expected = np.mean([squared[0, :, 0].mean(), squared[0, :, 2].mean(), squared[1, :, 3].mean()])
        assert float(F.hint_loss(**arguments, mask=mask)) == pytest.approx(expected)
        assert float(F.hint_loss(**arguments, mask=0.5 * mask)) == pytest.approx(expected)

    def test_mask_hides_nan_from_value_and_gradient(self) -> None:
        arguments = pair(2, 3, 4)
        mask = torch.ones(2, 4, dtype=torch.bool)
        mask[0, 1] = mask[1, 2] = False
        clean = F.hint_loss(**arguments, mask=mask)
        student, teacher = arguments["student_features"].clone(), arguments["teacher_features"].clone()
        student[0, :, 1] = teacher[1, :, 2] = math.nan
        assert torch.equal(F.hint_loss(student, teacher, mask=mask), clean)
        found = gradient(lambda s: F.hint_loss(s, teacher, mask=mask), student)
        assert torch.isfinite(found).all()
        assert not found[0, :, 1].any()

    def test_all_masked_is_a_differentiable_zero(self) -> None:
        arguments = pair(2, 3, 4)
        nothing = torch.zeros(2, 4)
        assert float(F.hint_loss(**arguments, mask=nothing)) == 0
        assert not gradient(
            lambda s: F.hint_loss(s, arguments["teacher_features"], mask=nothing), arguments["student_features"]
        ).any()

    def test_masked_derivatives_first_and_second(self) -> None:
        student, teacher = randn(2, 3, 4, seed=1).requires_grad_(), randn(2, 3, 4, seed=2)
        mask = torch.tensor([[1.0, 0.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.5]]).double()
        assert gradcheck(lambda s: F.hint_loss(s, teacher, mask=mask), student)
        assert gradgradcheck(lambda s: F.hint_loss(s, teacher, mask=mask), student)

    def test_mask_of_another_shape_is_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"mask must have .* shape \(2, 4\), got \(2, 3\)"):
            F.hint_loss(**pair(2, 3, 4), mask=torch.ones(2, 3))

    def test_other_width_asks_for_an_adapter(self) -> None:
        with pytest.raises(ShapeError, match=r"got \(2, 3\) and \(2, 5\): give the match an adapter"):
            F.hint_loss(randn(2, 3), randn(2, 5))

    def test_integers_are_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"teacher_features must be a floating-point tensor, got torch\.int64"):
            F.hint_loss(randn(2, 3), torch.ones(2, 3, dtype=torch.long))


class TestSquaredDistanceLoss(MapContract):
    function = staticmethod(F.squared_distance_loss)
    module = losses.SquaredDistanceLoss

    @pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4, 5)])
    def test_sum_over_elements_mean_over_samples(self, shape: tuple[int, ...]) -> None:
        arguments = pair(*shape)
        squared = (arguments["student_features"].numpy() - arguments["teacher_features"].numpy()) ** 2
        assert float(F.squared_distance_loss(**arguments)) == pytest.approx(squared.sum() / shape[0])

    def test_mask_weighs_positions(self) -> None:
        arguments = pair(2, 3, 4)
        mask = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
        squared = (arguments["student_features"] - arguments["teacher_features"]).numpy() ** 2
        expected = [2 * squared[0, :, 0].sum(), squared[1, :, 3].sum()]
        got = F.squared_distance_loss(**arguments, mask=mask, reduction="none")
        np.testing.assert_allclose(got.numpy(), expected)

    def test_mask_of_vectors(self) -> None:
        loss = F.squared_distance_loss(torch.ones(2, 3), torch.zeros(2, 3), mask=torch.tensor([1, 0]), reduction="none")
        assert loss.tolist() == [3, 0]


class TestAttentionTransferLoss(MapContract):
    function = staticmethod(F.attention_transfer_loss)
    module = losses.AttentionTransferLoss
    hyper = {"power": 2.0}

    @pytest.mark.parametrize("power", [1.0, 2.0, 2.5, 4.0])
    def test_against_numpy(self, power: float) -> None:
        student, teacher = randn(3, 4, 5, 6, seed=3), randn(3, 7, 5, 6, seed=4)
        maps = []
        for features in (student.numpy(), teacher.numpy()):
            strength = (np.abs(features) ** power).mean(1).reshape(3, -1)
            maps.append(strength / np.linalg.norm(strength, axis=1, keepdims=True))
        expected = ((maps[0] - maps[1]) ** 2).mean()
        assert float(F.attention_transfer_loss(student, teacher, power=power)) == pytest.approx(expected)

    def test_scale_does_not_matter(self) -> None:
        student, teacher = randn(3, 4, 5, 6, seed=3), randn(3, 7, 5, 6, seed=4)
        doubled = F.attention_transfer_loss(2 * student, 3 * teacher)
        torch.testing.assert_close(doubled, F.attention_transfer_loss(student, teacher))

    def test_larger_map_is_pooled_per_axis(self) -> None:
        student, teacher = randn(2, 4, 8, 3, seed=3), randn(2, 5, 4, 6, seed=4)
        pooled_student = student.reshape(2, 4, 4, 2, 3).mean(3)
        pooled_teacher = teacher.reshape(2, 5, 4, 3, 2).mean(4)
        torch.testing.assert_close(
            F.attention_transfer_loss(student, teacher), F.attention_transfer_loss(pooled_student, pooled_teacher)
        )

    @pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
    def test_a_dead_map_has_a_finite_gradient(self, power: float) -> None:
        teacher = randn(2, 3, 4, 4, seed=4)
        found = gradient(lambda s: F.attention_transfer_loss(s, teacher, power=power), torch.zeros(2, 3, 4, 4).double())
        assert torch.isfinite(found).all()

    def test_volumes_and_sequences(self) -> None:
        for spatial in ((6,), (2, 3, 2)):
            loss = F.attention_transfer_loss(randn(2, 3, *spatial, seed=3), randn(2, 4, *spatial, seed=4))
            assert float(loss) > 0

    def test_power_below_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"power must be a finite number >= 1, got 0\.5"):
            F.attention_transfer_loss(**self.inputs(), power=0.5)
        with pytest.raises(ValueError, match="power must be a finite number >= 1"):
            losses.AttentionTransferLoss(power=math.inf)

    def test_vectors_are_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"student_features must have shape \(N, C, \.\.\.\) with one to three"):
            F.attention_transfer_loss(randn(2, 3), randn(2, 3))

    def test_other_number_of_axes_is_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"one number of axes, got \(2, 3, 4, 4\) and \(2, 3, 4\): tap places"):
            F.attention_transfer_loss(randn(2, 3, 4, 4), randn(2, 3, 4))


class TestNeuronSelectivityLoss(MapContract):
    function = staticmethod(F.neuron_selectivity_loss)
    module = losses.NeuronSelectivityLoss

    # more positions than channels, and the other way round: the two ways to the same sums
    @pytest.mark.parametrize("shapes", [((3, 4, 4), (5, 4, 4)), ((7, 2, 2), (9, 2, 2)), ((40, 2, 2), (3, 2, 2))])
    def test_against_the_kernel_sums(self, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
        student, teacher = randn(2, *shapes[0], seed=3), randn(2, *shapes[1], seed=4)
        expected = []
        for pair_of_maps in zip(student.flatten(2).numpy(), teacher.flatten(2).numpy(), strict=True):
            s, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in pair_of_maps)
            kernel = [np.mean([np.dot(a, b) ** 2 for a in x for b in y]) for x, y in ((t, t), (s, s), (s, t))]
            expected.append(kernel[0] + kernel[1] - 2 * kernel[2])
        got = F.neuron_selectivity_loss(student, teacher, reduction="none")
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-10)

    def test_order_and_sign_and_scale_of_channels_do_not_matter(self) -> None:
        student, teacher = randn(2, 5, 3, 3, seed=3), randn(2, 4, 3, 3, seed=4)
        changed = student[:, [3, 0, 4, 1, 2]] * torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0]).double().view(1, 5, 1, 1)
        torch.testing.assert_close(
            F.neuron_selectivity_loss(changed, teacher), F.neuron_selectivity_loss(student, teacher)
        )

    @pytest.mark.parametrize("channels", [2, 40])
    def test_a_dead_channel_has_a_finite_gradient(self, channels: int) -> None:
        student, teacher = randn(2, channels, 2, 3, seed=3), randn(2, channels, 2, 3, seed=4)
        student[:, 0] = 0
        assert torch.isfinite(gradient(lambda s: F.neuron_selectivity_loss(s, teacher), student)).all()

    def test_larger_map_is_pooled(self) -> None:
        student, teacher = randn(2, 4, 4, 4, seed=3), randn(2, 5, 2, 2, seed=4)
        pooled = student.reshape(2, 4, 2, 2, 2, 2).mean((3, 5))
        torch.testing.assert_close(
            F.neuron_selectivity_loss(student, teacher), F.neuron_selectivity_loss(pooled, teacher)
        )


class TestFactorTransferLoss(MapContract):
    function = staticmethod(F.factor_transfer_loss)
    module = losses.FactorTransferLoss
    hyper = {"power": 2, "order": 2.0}

    @pytest.mark.parametrize(("power", "order"), [(2, 1.0), (1, 2.0), (3, 1.0), (None, 1.0), (None, 1.5)])
    def test_against_numpy(self, power: int | None, order: float) -> None:
        student, teacher = randn(3, 4, 2, 3, seed=3), randn(3, 4, 2, 3, seed=4)
        factors = []
        for features in (student.numpy(), teacher.numpy()):
            flat = (features if power is None else (features**power).mean(1)).reshape(3, -1)
            factors.append(flat / np.linalg.norm(flat, axis=1, keepdims=True))
        expected = (np.abs(factors[0] - factors[1]) ** order).mean()
        assert float(F.factor_transfer_loss(student, teacher, power=power, order=order)) == pytest.approx(expected)

    def test_other_channels_only_with_a_channel_mean(self) -> None:
        student, teacher = randn(3, 4, 2, 3, seed=3), randn(3, 6, 2, 3, seed=4)
        assert float(F.factor_transfer_loss(student, teacher)) > 0
        with pytest.raises(ShapeError, match=r"\(3, 4, 2, 3\) and \(3, 6, 2, 3\)"):
            F.factor_transfer_loss(student, teacher, power=None)

    @pytest.mark.parametrize("power", [0, 1.5])
    def test_power_must_be_whole(self, power: Any) -> None:
        with pytest.raises(ValueError, match=rf"power must be a whole number >= 1, or None .*, got {power}"):
            F.factor_transfer_loss(**self.inputs(), power=power)
        with pytest.raises(ValueError, match="power must be a whole number"):
            losses.FactorTransferLoss(power=power)

    def test_order_below_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"order must be a finite number >= 1, got 0\.5"):
            F.factor_transfer_loss(**self.inputs(), order=0.5)


class TestFSPLoss(LossContract):
    function = staticmethod(F.fsp_loss)
    module = losses.FSPLoss
    sequences = True

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_features0": randn(batch, 2, 3, 3, seed=1, dtype=dtype),
            "student_features1": randn(batch, 3, 2, 2, seed=2, dtype=dtype),
            "teacher_features0": randn(batch, 2, 3, 3, seed=3, dtype=dtype),
            "teacher_features1": randn(batch, 3, 2, 2, seed=4, dtype=dtype),
        }

    def test_against_numpy(self) -> None:
        student = [randn(3, 2, 4, 4, seed=1), randn(3, 3, 4, 4, seed=2), randn(3, 5, 2, 2, seed=3)]
        teacher = [randn(3, 2, 6, 2, seed=4), randn(3, 3, 6, 2, seed=5), randn(3, 5, 6, 2, seed=6)]

        def flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return np.einsum("nahw,nbhw->nab", a, b) / (a.shape[2] * a.shape[3])

        s, t = [x.numpy() for x in student], [x.numpy() for x in teacher]
        pooled = s[1].reshape(3, 3, 2, 2, 2, 2).mean((3, 5))
        expected = ((flow(s[0], s[1]) - flow(t[0], t[1])) ** 2).mean()
        expected += ((flow(pooled, s[2]) - flow(t[1], t[2])) ** 2).mean()
        assert float(F.fsp_loss(student, teacher)) == pytest.approx(expected)

    def test_one_layer_has_no_flow(self) -> None:
        with pytest.raises(ShapeError, match=r"at least 2, got \[\(2, 3, 4, 4\)\] and \[\(2, 3, 4, 4\)\]"):
            F.fsp_loss([randn(2, 3, 4, 4)], [randn(2, 3, 4, 4)])

    def test_counts_must_agree(self) -> None:
        maps = randn(2, 3, 4, 4)
        with pytest.raises(ShapeError, match="must hold equally many layers"):
            F.fsp_loss([maps, maps], [maps, maps, maps])

    def test_a_single_tensor_is_refused(self) -> None:
        with pytest.raises(ShapeError, match="teacher_features must be a sequence of tensors, one per layer, got one"):
            F.fsp_loss([randn(2, 3, 4, 4)] * 2, randn(2, 3, 4, 4))

    def test_other_channels_name_the_layer_and_the_adapter(self) -> None:
        maps = randn(2, 3, 4, 4)
        message = r"student_features\[1\] and teacher_features\[1\] .* axis 1, got .*ConvAdapter\(3, 5\)"
        with pytest.raises(ShapeError, match=message):
            F.fsp_loss([maps, maps], [maps, randn(2, 5, 4, 4)])

    def test_nan_names_the_layer(self) -> None:
        maps = randn(2, 3, 4, 4)
        with pytest.raises(NonFiniteError, match=r"student_features\[1\] .* holds NaN in 2 of 2 rows"):
            F.fsp_loss([maps, maps * math.nan], [maps, maps])


class TestActivationBoundaryLoss(MapContract):
    function = staticmethod(F.activation_boundary_loss)
    module = losses.ActivationBoundaryLoss
    hyper = {"margin": 1.5}
    zero_at_equality = False

    def test_against_the_four_cases(self) -> None:
        student, teacher = 2 * randn(3, 4, 2, 3, seed=3), randn(3, 4, 2, 3, seed=4)
        teacher[0, 0] = 0.0  # the boundary counts as inactive
        s, t, margin = student.numpy(), teacher.numpy(), 1.0
        expected = (
            (s + margin) ** 2 * ((s > -margin) & (t <= 0)) + (s - margin) ** 2 * ((s <= margin) & (t > 0))
        ).sum()
        assert float(F.activation_boundary_loss(student, teacher)) == pytest.approx(expected / 3)

    def test_beyond_the_margin_costs_nothing(self) -> None:
        teacher = torch.tensor([[1e-3, -7.0, 0.0]])
        assert float(F.activation_boundary_loss(torch.tensor([[1.0, -1.0, -4.0]]), teacher)) == 0

    def test_margin_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="margin must be a finite number above 0, got 0"):
            F.activation_boundary_loss(**self.inputs(), margin=0)


class Identity(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features


class TestVariationalInformationLoss(MapContract):
    function = staticmethod(F.variational_information_loss)
    module = losses.VariationalInformationLoss
    hyper = {"raw_variance": randn(3, seed=5), "floor": 1e-3}
    module_hyper = {"student_channels": 3, "teacher_channels": 3, "floor": 1e-3}
    zero_at_equality = False

    def build(self, **extra: Any) -> nn.Module:
        module = super().build(**extra)
        module.regressor = Identity()
        module.raw_variance = nn.Parameter(self.hyper["raw_variance"].clone())
        return module

    def test_against_the_normal_density(self) -> None:
        mean, teacher, raw = randn(2, 3, 4, 5, seed=3), randn(2, 3, 4, 5, seed=4), randn(3, seed=5)
        variance = torch.log1p(raw.exp()) + 1e-5
        normal = torch.distributions.Normal(mean, variance.sqrt().view(1, 3, 1, 1))
        expected = -normal.log_prob(teacher).mean() - 0.5 * math.log(2 * math.pi)
        torch.testing.assert_close(F.variational_information_loss(mean, teacher, raw), expected)

    def test_perfect_regressor_leaves_half_the_mean_log_variance(self) -> None:
        features, raw = randn(2, 3, 4, seed=3), randn(3, seed=5)
        expected = 0.5 * np.log(np.log1p(np.exp(raw.numpy())) + 1e-5).mean()
        assert float(F.variational_information_loss(features, features, raw)) == pytest.approx(expected)

    def test_variances_are_learned(self) -> None:
        arguments = self.inputs(batch=3)
        raw = self.hyper["raw_variance"].clone().requires_grad_()
        assert gradcheck(lambda r: F.variational_information_loss(**arguments, raw_variance=r), raw)

    @pytest.mark.parametrize("variance", [1e-3, 1.0, 5.0, 2000.0])
    def test_variance_starts_where_it_is_told(self, variance: float) -> None:
        module = losses.VariationalInformationLoss(2, 3, initial_variance=variance)
        started = nn.functional.softplus(module.raw_variance.detach().double()) + module.floor
        np.testing.assert_allclose(started.numpy(), np.full(3, variance), rtol=1e-5)

    def test_module_trains_regressor_and_variances_on_maps_of_another_size(self) -> None:
        module = losses.VariationalInformationLoss(2, 3, hidden_channels=4)
        assert [tuple(p.shape) for p in module.parameters()] == [(3,), (4, 2, 1, 1), (4, 4, 1, 1), (3, 4, 1, 1)]
        student, teacher = (
            randn(2, 2, 4, 4, seed=3, dtype=torch.float32),
            randn(2, 3, 2, 2, seed=4, dtype=torch.float32),
        )
        module(student, teacher).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
        torch.testing.assert_close(module(student, teacher), module(nn.functional.avg_pool2d(student, 2), teacher))

    def test_shapes_are_checked(self) -> None:
        module = losses.VariationalInformationLoss(2, 3)
        with pytest.raises(ShapeError, match=r"must have 2 channels.*got shape \(1, 5, 4, 4\): set student_channels=5"):
            module(torch.zeros(1, 5, 4, 4), torch.zeros(1, 3, 4, 4))
        with pytest.raises(ShapeError, match=r"student_features must have shape \(N, C, H, W\), got \(1, 2\)"):
            module(torch.zeros(1, 2), torch.zeros(1, 3))
        with pytest.raises(ShapeError, match=r"raw_variance must have one entry per channel, shape \(3,\).*got \(2,\)"):
            F.variational_information_loss(randn(1, 3), randn(1, 3), randn(2))

    def test_variance_must_exceed_its_floor(self) -> None:
        with pytest.raises(ValueError, match=r"initial_variance must be a finite number above floor=0\.1, got 0\.1"):
            losses.VariationalInformationLoss(2, 3, initial_variance=0.1, floor=0.1)
        with pytest.raises(ValueError, match="floor must be a finite number above 0, got 0"):
            F.variational_information_loss(randn(1, 3), randn(1, 3), randn(3), floor=0)


class TestPooledFeatureLoss(MapContract):
    function = staticmethod(F.pooled_feature_loss)
    module = losses.PooledFeatureLoss

    def test_against_numpy_with_other_sizes(self) -> None:
        student, teacher = randn(3, 4, 5, 6, seed=3), randn(3, 4, 2, 3, seed=4)
        expected = ((student.numpy().mean((2, 3)) - teacher.numpy().mean((2, 3))) ** 2).mean()
        assert float(F.pooled_feature_loss(student, teacher)) == pytest.approx(expected)
        assert float(F.pooled_feature_loss(student.mean((2, 3)), teacher)) == pytest.approx(expected)

    def test_other_channels_are_refused(self) -> None:
        with pytest.raises(
            ShapeError, match=r"batch size and channels, got \(2, 3, 4\) and \(2, 5, 4\): give the match"
        ):
            F.pooled_feature_loss(randn(2, 3, 4), randn(2, 5, 4))


class TestSoftmaxRegressionLoss(LossContract):
    function = staticmethod(F.softmax_regression_loss)
    module = losses.SoftmaxRegressionLoss
    hyper = {"feature_weight": 0.5, "logit_weight": 2.0}

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {**pair(batch, 3, 2, 3, dtype=dtype), "classifier_weight": randn(5, 3, seed=3, dtype=dtype)}

    def test_is_feature_loss_and_logit_loss_through_the_teachers_classifier(self) -> None:
        classifier = nn.Linear(3, 5).double()
        arguments = pair(4, 3, 2, 3)
        logits = [classifier(arguments[f"{side}_features"].mean((2, 3))) for side in ("student", "teacher")]
        expected = 0.5 * F.pooled_feature_loss(**arguments) + 2 * F.hint_loss(*logits)
        got = F.softmax_regression_loss(
            **arguments, classifier_weight=classifier.weight, feature_weight=0.5, logit_weight=2
        )
        torch.testing.assert_close(got, expected)
        assert not got.requires_grad

    def test_gradient_reaches_the_student_through_the_classifier_alone(self) -> None:
        arguments = self.inputs()
        found = gradient(
            lambda s: F.softmax_regression_loss(**{**arguments, "student_features": s}, feature_weight=0),
            arguments["student_features"],
        )
        assert found.abs().sum() > 0

    def test_classifier_must_fit(self) -> None:
        with pytest.raises(ShapeError, match=r"classifier_weight must have shape \(K, 3\) .* got \(5, 4\)"):
            F.softmax_regression_loss(randn(2, 3), randn(2, 3), randn(5, 4))

    @pytest.mark.parametrize("name", ["feature_weight", "logit_weight"])
    def test_weights_must_not_be_negative(self, name: str) -> None:
        with pytest.raises(ValueError, match=rf"{name} must be a finite number >= 0, got -1"):
            F.softmax_regression_loss(**self.inputs(), **{name: -1})


class Mix(nn.Module):
    """Generation layers of any dtype: a fixed mixture of neighbouring channels."""

    def forward(self, features: Tensor) -> Tensor:
        return features + 0.5 * features.roll(1, 1)


class TestMaskedGenerativeLoss(LossContract):
    function = staticmethod(F.masked_generative_loss)
    module = losses.MaskedGenerativeLoss
    hyper = {"generation": Mix(), "mask_ratio": 0.4, "masking": "channel"}
    module_hyper = {"channels": 3, "mask_ratio": 0.4, "masking": "channel"}
    zero_at_equality = False

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        noise = torch.rand(batch, 3, 1, 1, generator=torch.Generator().manual_seed(3))
        return {**pair(batch, 3, 2, 3, dtype=dtype), "noise": noise}

    def build(self, **extra: Any) -> nn.Module:
        module = super().build(**extra)
        module.generation = Mix()
        return module

    def test_masks_channels_by_hand(self) -> None:
        student, teacher = torch.tensor([[[2.0], [3.0]]]), torch.tensor([[[1.0], [1.0]]])
        noise = torch.tensor([[[0.1], [0.4]]])  # the first channel falls below 0.4, the second stays
        loss = F.masked_generative_loss(student, teacher, nn.Identity(), mask_ratio=0.4, noise=noise)
        assert float(loss) == 1 + 4

    def test_masks_pixels_by_hand(self) -> None:
        student, teacher = torch.tensor([[[2.0, 3.0], [4.0, 5.0]]]), torch.ones(1, 2, 2)
        noise = torch.tensor([[[0.9, 0.1]]])
        loss = F.masked_generative_loss(student, teacher, nn.Identity(), mask_ratio=0.5, masking="pixel", noise=noise)
        assert float(loss) == 1 + 1 + 9 + 1

    def test_unmasked_identity_is_the_squared_distance(self) -> None:
        arguments = pair(2, 3, 4, 4)
        got = F.masked_generative_loss(**arguments, generation=nn.Identity(), mask_ratio=0)
        torch.testing.assert_close(got, F.squared_distance_loss(**arguments))

    @pytest.mark.parametrize("masking", ["channel", "pixel"])
    def test_draws_come_from_the_generator_in_the_given_share(self, masking: Any) -> None:
        ones = torch.ones(8, 50, 5, 10)

        def kept(seed: int) -> Tensor:
            return F.masked_generative_loss(
                ones,
                torch.zeros_like(ones),
                nn.Identity(),
                mask_ratio=0.3,
                masking=masking,
                generator=torch.Generator().manual_seed(seed),
                reduction="none",
            )

        assert torch.equal(kept(1), kept(1))
        assert not torch.equal(kept(1), kept(2))
        assert float(kept(1).mean()) / ones[0].numel() == pytest.approx(0.7, abs=0.08)

    def test_module_trains_its_generation_layers(self) -> None:
        module = losses.MaskedGenerativeLoss(3, mask_ratio=0.5, masking="pixel")
        arguments = pair(2, 3, 4, 5, dtype=torch.float32)
        student = arguments["student_features"].requires_grad_()
        module(student, arguments["teacher_features"], generator=torch.Generator().manual_seed(0)).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (student, *module.parameters()))

    def test_options_and_shapes_are_checked(self) -> None:
        arguments = pair(2, 3, 4, 4)
        with pytest.raises(ValueError, match="masking must be 'channel' or 'pixel', got 'spatial'"):
            losses.MaskedGenerativeLoss(3, masking="spatial")
        with pytest.raises(ValueError, match="mask_ratio must lie below 1, got 1"):
            losses.MaskedGenerativeLoss(3, mask_ratio=1)
        with pytest.raises(ValueError, match=r"mask_ratio must lie between 0 and 1, got -0\.1"):
            F.masked_generative_loss(**arguments, generation=nn.Identity(), mask_ratio=-0.1)
        with pytest.raises(ShapeError, match=r"noise must have shape \(2, 1, 4, 4\) .* by pixel, got \(2, 3, 1, 1\)"):
            F.masked_generative_loss(
                **arguments, generation=nn.Identity(), masking="pixel", noise=torch.rand(2, 3, 1, 1)
            )
        with pytest.raises(
            ShapeError, match=r"the output of generation .* \(2, 3, 16\) and \(2, 3, 4, 4\): generation"
        ):
            F.masked_generative_loss(**arguments, generation=nn.Flatten(2))
        with pytest.raises(ShapeError, match=r"shape \(N, 5, H, W\), as channels says, got \(2, 3, 4, 4\)"):
            losses.MaskedGenerativeLoss(5)(**arguments)


class TestChannelWiseDivergenceLoss(MapContract):
    function = staticmethod(F.channel_wise_divergence_loss)
    module = losses.ChannelWiseDivergenceLoss
    hyper = {"temperature": 2.0}

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
    def test_against_scipy(self, temperature: float) -> None:
        student, teacher = randn(2, 3, 4, 5, seed=3), randn(2, 3, 4, 5, seed=4)
        q, p = (softmax(x.flatten(2).numpy() / temperature, axis=2) for x in (student, teacher))
        expected = temperature**2 * rel_entr(p, q).sum(2).mean()
        got = F.channel_wise_divergence_loss(student, teacher, temperature=temperature)
        assert float(got) == pytest.approx(expected)

    def test_mask_is_a_softmax_over_the_kept_positions(self) -> None:
        arguments = pair(2, 3, 2, 4)
        mask = torch.ones(2, 2, 4, dtype=torch.bool)
        mask[:, :, 3] = False
        kept = {name: features[..., :3] for name, features in arguments.items()}
        expected = F.channel_wise_divergence_loss(**kept)
        torch.testing.assert_close(F.channel_wise_divergence_loss(**arguments, mask=mask), expected)
        arguments["student_features"][0, :, 1, 3] = arguments["teacher_features"][1, :, 0, 3] = math.nan
        torch.testing.assert_close(F.channel_wise_divergence_loss(**arguments, mask=mask), expected)
        found = gradient(
            lambda s: F.channel_wise_divergence_loss(s, arguments["teacher_features"], mask=mask, temperature=0.5),
            arguments["student_features"],
        )
        assert torch.isfinite(found).all()
        assert not found[..., 3].any()

    def test_a_sample_without_positions_counts_as_zero(self) -> None:
        arguments = pair(2, 3, 4, dtype=torch.float32)
        mask = torch.tensor([[0, 0, 0, 0], [1, 1, 0, 1]])
        loss = F.channel_wise_divergence_loss(**arguments, mask=mask, reduction="none")
        assert float(loss[0]) == 0
        assert float(loss[1]) > 0
        found = gradient(
            lambda s: F.channel_wise_divergence_loss(s, arguments["teacher_features"], mask=mask),
            arguments["student_features"],
        )
        assert torch.isfinite(found).all()

    def test_mask_of_another_shape_is_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"shape \(2, 4\), got \(2, 3, 4\)"):
            F.channel_wise_divergence_loss(**pair(2, 3, 4), mask=torch.ones(2, 3, 4))

    def test_temperature_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="temperature must be a finite number above 0, got -1"):
            F.channel_wise_divergence_loss(**self.inputs(), temperature=-1)


class TestPearsonFeatureLoss(MapContract):
    function = staticmethod(F.pearson_feature_loss)
    module = losses.PearsonFeatureLoss
    hyper = {"epsilon": 1e-6}
    has_reduction = False

    def test_is_one_minus_pearson(self) -> None:
        student, teacher = randn(3, 4, 2, 5, seed=3), randn(3, 4, 2, 5, seed=4)
        rows = [x.transpose(0, 1).flatten(1).numpy() for x in (student, teacher)]
        count = rows[0].shape[1]
        correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(*rows, strict=True)]
        expected = (1 - np.mean(correlations)) * (count - 1) / count  # the deviation is the unbiased one
        assert float(F.pearson_feature_loss(student, teacher, epsilon=1e-12)) == pytest.approx(expected)

    def test_scale_and_offset_of_a_channel_do_not_matter(self) -> None:
        student, teacher = randn(3, 4, 2, 5, seed=3), randn(3, 4, 2, 5, seed=4)
        changed = student * torch.tensor([2.0, 0.5, 7.0, 1.0]).double().view(1, 4, 1, 1) + 3
        torch.testing.assert_close(
            F.pearson_feature_loss(changed, teacher), F.pearson_feature_loss(student, teacher), rtol=1e-5, atol=0
        )

    def test_student_is_resized_to_the_teacher(self) -> None:
        student, teacher = randn(2, 3, 4, 4, seed=3), randn(2, 3, 8, 6, seed=4)
        resized = nn.functional.interpolate(student, (8, 6), mode="bilinear", align_corners=False)
        torch.testing.assert_close(F.pearson_feature_loss(student, teacher), F.pearson_feature_loss(resized, teacher))
        assert float(F.pearson_feature_loss(randn(2, 3, 4), randn(2, 3, 6))) > 0
        assert float(F.pearson_feature_loss(randn(2, 3, 2, 2, 2), randn(2, 3, 4, 2, 3))) > 0

    def test_a_constant_channel_has_a_finite_gradient(self) -> None:
        student, teacher = randn(2, 3, 4, seed=3), randn(2, 3, 4, seed=4)
        student[:, 1] = 0
        assert torch.isfinite(gradient(lambda s: F.pearson_feature_loss(s, teacher), student)).all()

    def test_one_value_per_channel_is_a_differentiable_zero(self) -> None:
        teacher = randn(1, 3, 1, 1, seed=4)
        found = gradient(lambda s: F.pearson_feature_loss(s, teacher), randn(1, 3, 1, 1, seed=3))
        assert not found.any()
        assert float(F.pearson_feature_loss(randn(1, 3), randn(1, 3, seed=1))) == 0

    def test_empty_batch_of_another_size(self) -> None:
        assert float(F.pearson_feature_loss(randn(0, 3, 2, 2), randn(0, 3, 4, 4))) == 0

    def test_epsilon_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="epsilon must be a finite number above 0, got 0"):
            F.pearson_feature_loss(**self.inputs(), epsilon=0)


class TestHierarchicalContextLoss(LossContract):
    function = staticmethod(F.hierarchical_context_loss)
    module = losses.HierarchicalContextLoss
    hyper = {"levels": (2, 1)}
    sequences = True

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {
            "student_features0": randn(batch, 2, 3, 3, seed=1, dtype=dtype),
            "student_features1": randn(batch, 3, 1, 1, seed=2, dtype=dtype),
            "teacher_features0": randn(batch, 2, 3, 3, seed=3, dtype=dtype),
            "teacher_features1": randn(batch, 3, 1, 1, seed=4, dtype=dtype),
        }

    def test_against_numpy(self) -> None:
        student = [randn(2, 3, 8, 8, seed=1), randn(2, 4, 4, 4, seed=2), randn(2, 5, seed=3)]
        teacher = [randn(2, 3, 8, 8, seed=4), randn(2, 4, 4, 4, seed=5), randn(2, 5, seed=6)]
        d = [(s - t).numpy() for s, t in zip(student, teacher, strict=True)]

        def cells(x: np.ndarray, level: int) -> np.ndarray:
            n, c, h, w = x.shape
            return x.reshape(n, c, level, h // level, level, w // level).mean((3, 5))

        def mse(x: np.ndarray) -> float:
            return float((x**2).mean())

        first = mse(d[0]) + mse(cells(d[0], 4)) / 2 + mse(cells(d[0], 2)) / 4 + mse(cells(d[0], 1)) / 8
        second = mse(d[1]) + mse(cells(d[1], 2)) / 2 + mse(cells(d[1], 1)) / 4  # 4 is not smaller than the map
        expected = first / 1.875 + second / 1.75 + mse(d[2])
        assert float(F.hierarchical_context_loss(student, teacher)) == pytest.approx(expected)

    def test_without_levels_it_is_the_mean_square(self) -> None:
        arguments = pair(2, 3, 4, 4)
        got = F.hierarchical_context_loss(*([features] for features in arguments.values()), levels=())
        torch.testing.assert_close(got, F.hint_loss(**arguments))

    def test_sequences_and_volumes(self) -> None:
        for spatial in ((6,), (3, 4, 2)):
            ones = torch.ones(2, 3, *spatial)
            assert float(F.hierarchical_context_loss([ones], [0 * ones])) == pytest.approx(1)

    @pytest.mark.parametrize("levels", [(1, 2), (2, 2), (0,), (1.5,)])
    def test_levels_must_decrease(self, levels: Any) -> None:
        with pytest.raises(ValueError, match=r"levels must be whole numbers >= 1 in decreasing order"):
            losses.HierarchicalContextLoss(levels=levels)

    def test_a_stage_of_another_shape_is_named(self) -> None:
        maps = randn(2, 3, 4, 4)
        with pytest.raises(ShapeError, match=r"student_features\[1\] and teacher_features\[1\] must have one shape"):
            F.hierarchical_context_loss([maps, maps], [maps, randn(2, 3, 2, 2)])


class TestPartialL2Loss(LossContract):
    function = staticmethod(F.partial_l2_loss)
    module = losses.PartialL2Loss

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return {**pair(batch, 3, 2, 3, dtype=dtype), "margin": -randn(3, seed=3, dtype=dtype).abs()}

    def test_zero_with_finite_gradient_at_equality(self) -> None:
        """Equality is free only above the margin; below it, the student is asked to stay below the margin."""
        teacher = randn(4, 3, 4, 4, seed=2)
        margin = -randn(3, seed=3).abs()
        student = teacher.maximum(margin.view(3, 1, 1))
        assert float(F.partial_l2_loss(student, teacher, margin)) == 0
        assert not gradient(lambda s: F.partial_l2_loss(s, teacher, margin), student).any()

    def test_against_the_three_cases(self) -> None:
        student, teacher, margin = randn(3, 4, 2, 3, seed=3), randn(3, 4, 2, 3, seed=4), -randn(4, seed=5).abs()
        s, t, m = student.numpy(), teacher.numpy(), margin.numpy().reshape(1, 4, 1, 1)
        expected = (s - m) ** 2 * ((s > m) & (t <= m)) + (s - t) ** 2 * ((s > t) & (t > m) & (t <= 0))
        expected = expected + (s - t) ** 2 * (t > 0)
        got = F.partial_l2_loss(student, teacher, margin, reduction="none")
        np.testing.assert_allclose(got.numpy(), expected.sum((1, 2, 3)))

    def test_margin_is_checked(self) -> None:
        arguments = pair(2, 3, 4, 4)
        with pytest.raises(
            ShapeError, match=r"margin must have one entry per channel, shape \(3,\), .* got \(1, 3, 1, 1\)"
        ):
            F.partial_l2_loss(**arguments, margin=torch.zeros(1, 3, 1, 1))
        with pytest.raises(ValueError, match=r"margin must be at or below 0 in every channel, got 0\.5 in channel 1"):
            F.partial_l2_loss(**arguments, margin=torch.tensor([-1.0, 0.5, 0.0]))


class TestFeatureOverhaulLoss(LossContract):
    function = staticmethod(F.feature_overhaul_loss)
    module = losses.FeatureOverhaulLoss
    zero_at_equality = False

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        affine = {"bn_weight": randn(3, seed=3, dtype=dtype), "bn_bias": randn(3, seed=4, dtype=dtype)}
        return {**pair(batch, 3, 2, 3, dtype=dtype), **affine}

    def test_is_the_partial_distance_with_the_margin(self) -> None:
        arguments = self.inputs()
        margin = F.ofd_margin(arguments.pop("bn_weight"), arguments.pop("bn_bias"))
        torch.testing.assert_close(self.call(**self.inputs()), F.partial_l2_loss(**arguments, margin=margin))


class TestOfdMargin:
    def test_is_the_mean_of_the_negative_part(self) -> None:
        weight, bias = randn(6, seed=1), randn(6, seed=2)
        expected = [
            truncnorm.mean(-np.inf, (0 - m) / s, loc=m, scale=s)
            for s, m in zip(np.abs(weight.numpy()), bias.numpy(), strict=True)
        ]
        np.testing.assert_allclose(F.ofd_margin(weight, bias).numpy(), expected, rtol=1e-9)

    def test_rarely_negative_channels_take_three_deviations(self) -> None:
        assert F.ofd_margin(torch.tensor([-0.5]), torch.tensor([4.0])).tolist() == [-1.5]

    def test_a_dead_scale_gives_the_limit(self) -> None:
        margin = F.ofd_margin(torch.zeros(3), torch.tensor([-2.0, 0.0, 2.0]))
        assert margin.tolist() == [-2.0, 0.0, 0.0]

    def test_a_tiny_scale_stays_finite(self) -> None:
        margin = F.ofd_margin(torch.full((3,), 1e-30), torch.tensor([-2.0, 0.0, 2.0]))
        np.testing.assert_allclose(margin.numpy(), [-2.0, 0.0, 0.0], atol=1e-20)

    def test_inputs_are_checked(self) -> None:
        with pytest.raises(ShapeError, match=r"bn_weight must have shape \(C,\), got \(1, 3\)"):
            F.ofd_margin(randn(1, 3), randn(3))
        with pytest.raises(ShapeError, match=r"got \(3,\) and \(4,\): pass both parameters of one normalisation layer"):
            F.ofd_margin(randn(3), randn(4))
        with pytest.raises(NonFiniteError, match="bn_bias of shape"):
            F.ofd_margin(randn(3), randn(3) * math.nan)


class TokenContract(LossContract):
    """A loss of hidden states under an attention mask."""

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return pair(batch, 3, 5, dtype=dtype)

    def test_padding_has_no_influence(self) -> None:
        arguments = pair(2, 4, 5)
        mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
        kept = {name: states[mask.bool()] for name, states in arguments.items()}
        expected = self.call(**kept)
        torch.testing.assert_close(self.call(**arguments, mask=mask), expected)
        torch.testing.assert_close(self.build()(**arguments, mask=mask.bool()), expected)
        arguments["student_features"][0, 3] = arguments["teacher_features"][1, 2] = math.nan
        torch.testing.assert_close(self.call(**arguments, mask=mask), expected)
        found = gradient(
            lambda s: self.call(student_features=s, teacher_features=arguments["teacher_features"], mask=mask),
            arguments["student_features"],
        )
        assert torch.isfinite(found).all()
        assert not found[mask == 0].any()

    def test_all_padding_is_a_differentiable_zero(self) -> None:
        arguments = pair(2, 4, 5)
        teacher, nothing = arguments["teacher_features"], torch.zeros(2, 4)
        assert float(self.call(**arguments, mask=nothing)) == 0
        assert not gradient(
            lambda s: self.call(student_features=s, teacher_features=teacher, mask=nothing),
            arguments["student_features"],
        ).any()

    def test_masked_gradient(self) -> None:
        teacher, mask = randn(2, 4, 5, seed=2), torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0]])
        student = randn(2, 4, 5, seed=1).requires_grad_()
        assert gradcheck(lambda s: self.call(student_features=s, teacher_features=teacher, mask=mask), student)

    def test_mask_of_another_shape_is_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"shape \(2, 4\), got \(2, 5\)"):
            self.call(**pair(2, 4, 5), mask=torch.ones(2, 5))


class TestHiddenStateMSELoss(TokenContract):
    function = staticmethod(F.hidden_state_mse_loss)
    module = losses.HiddenStateMSELoss

    def test_against_numpy(self) -> None:
        arguments = pair(2, 4, 5)
        expected = np.mean((arguments["student_features"].numpy() - arguments["teacher_features"].numpy()) ** 2)
        assert float(F.hidden_state_mse_loss(**arguments)) == pytest.approx(expected)
        assert F.hidden_state_mse_loss(**arguments, reduction="none").shape == (2, 4)


class TestHiddenStateCosineLoss(TokenContract):
    function = staticmethod(F.hidden_state_cosine_loss)
    module = losses.HiddenStateCosineLoss

    def test_against_scipy(self) -> None:
        student, teacher = randn(6, 5, seed=3), randn(6, 5, seed=4)
        expected = [cosine(s, t) for s, t in zip(student.numpy(), teacher.numpy(), strict=True)]
        got = F.hidden_state_cosine_loss(student, teacher, reduction="none")
        np.testing.assert_allclose(got.numpy(), expected)

    def test_a_zero_state_has_cosine_zero(self) -> None:
        loss = F.hidden_state_cosine_loss(
            torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
        )
        assert float(loss) == 1


class TestFirstTokenLoss(LossContract):
    function = staticmethod(F.first_token_loss)
    module = losses.FirstTokenLoss

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
        return pair(batch, 3, 5, dtype=dtype)

    def test_is_twice_the_cosine_distance_of_token_zero(self) -> None:
        student, teacher = randn(3, 4, 5, seed=3), randn(3, 4, 5, seed=4)
        expected = [2 * cosine(s[0], t[0]) for s, t in zip(student.numpy(), teacher.numpy(), strict=True)]
        np.testing.assert_allclose(F.first_token_loss(student, teacher, reduction="none").numpy(), expected)
        np.testing.assert_allclose(F.first_token_loss(student[:, 0], teacher[:, 0]).item(), np.mean(expected))

    def test_other_tokens_do_not_matter(self) -> None:
        student, teacher = randn(3, 4, 5, seed=3), randn(3, 4, 5, seed=4)
        expected = F.first_token_loss(student, teacher)
        student[:, 1:] = math.nan
        assert torch.equal(F.first_token_loss(student, teacher), expected)

    def test_no_token_is_refused(self) -> None:
        with pytest.raises(ShapeError, match=r"must hold at least one token, got shape \(2, 0, 5\)"):
            F.first_token_loss(randn(2, 0, 5), randn(2, 0, 5))


CONTRACTS = [
    value for name, value in sorted(globals().items()) if name.startswith("Test") and issubclass(value, LossContract)
]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.__name__)
def test_compiles_into_one_graph(contract: type[LossContract]) -> None:
    arguments = contract().inputs()
    packed = contract().pack(arguments)
    compiled = torch.compile(contract.function, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(**packed, **contract.hyper), contract.function(**packed, **contract.hyper))


def test_masked_loss_compiles_with_its_gradient() -> None:
    arguments = pair(2, 4, 5)
    student, mask = arguments["student_features"].requires_grad_(), torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0]])
    compiled = torch.compile(F.hidden_state_mse_loss, fullgraph=True, backend="aot_eager")
    grads = [
        torch.autograd.grad(loss(student, arguments["teacher_features"], mask=mask), student)[0]
        for loss in (compiled, F.hidden_state_mse_loss)
    ]
    torch.testing.assert_close(*grads)
