"""MDCS: priors, confident samples, batched experts against single ones, and the views of an image."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from limbeck_core import Distiller, Match, Tap
from limbeck_core.build import build
from limbeck_core.engine.config import load_config
from limbeck_core.errors import ConfigError, DataError, NonFiniteError, ShapeError, TargetError
from limbeck_vision.data import ImageArray, LongTailed
from limbeck_vision.methods.mdcs import (
    ConfidentConsistencyLoss,
    Cutout,
    DiverseExpertsLoss,
    ExpertResNet,
    PickView,
    TwoViewCall,
    TwoViews,
    check_class_counts,
    confident_consistency_loss,
    confident_instances,
    diverse_experts_loss,
    expert_resnet8,
    prior_offsets,
    strong_cifar,
    strong_digits,
    weak_cifar,
)
from loss_contract import LossContract, labels, randn

COUNTS = (50, 20, 5, 1)


class TestPriors:
    def test_exponents_by_hand(self) -> None:
        offsets = prior_offsets([100, 10, 1], exponents=(-0.5, 0.0, 2.0))
        expected = np.log(np.array([[100.0**-0.5, 10**-0.5, 1], [1, 1, 1], [1e4, 1e2, 1]]))
        np.testing.assert_allclose(offsets.numpy(), expected, atol=1e-12)

    def test_large_counts_stay_finite(self) -> None:
        assert torch.isfinite(prior_offsets([10**9, 1], exponents=(2.5,)).to(torch.float16)).all()

    @pytest.mark.parametrize("counts", [(5, 0, 3, 0), (5, float("nan")), (5,), ()])
    def test_absent_classes_are_refused(self, counts: tuple[float, ...]) -> None:
        with pytest.raises(DataError, match="count of 1 or more for each of two or more classes.*Lower the imbalance"):
            check_class_counts(counts)  # type: ignore[arg-type]

    def test_absent_classes_are_named_and_reach_both_losses(self) -> None:
        for loss in (DiverseExpertsLoss, ConfidentConsistencyLoss):
            with pytest.raises(DataError, match="of which 2 have none: 1, 3"):
                loss((5, 0, 3, 0))

    def test_a_long_tail_that_lost_classes_is_refused(self) -> None:
        images, targets = np.zeros((40, 3, 4, 4), np.uint8), np.repeat(np.arange(4), 10)
        with pytest.warns(UserWarning, match="have no sample left"):
            tail = LongTailed(ImageArray(images, targets, "abcd"), imbalance=1000)
        with pytest.raises(DataError, match="have none"):
            DiverseExpertsLoss(tail.class_counts)


class TestDiverseExperts:
    offsets = prior_offsets(COUNTS)

    def test_exponent_zero_is_cross_entropy_of_each_expert(self) -> None:
        logits, target = randn(6, 2, 4), labels(6, 4)
        loss = diverse_experts_loss(logits, target, offsets=prior_offsets(COUNTS, exponents=(0, 0)))
        torch.testing.assert_close(loss, sum(cross_entropy(logits[:, e], target) for e in (0, 1)))

    def test_every_view_has_the_label(self) -> None:
        views, target = [randn(3, 3, 4, seed=s) for s in (0, 1)], labels(3, 4)
        both = diverse_experts_loss(torch.cat(views), target, offsets=self.offsets, reduction="none")
        apart = [diverse_experts_loss(v, target, offsets=self.offsets, reduction="none") for v in views]
        torch.testing.assert_close(both, torch.cat(apart))

    def test_gradient_module_and_half_precision(self) -> None:
        logits, target = randn(4, 3, 4).requires_grad_(), labels(4, 4)
        assert torch.autograd.gradcheck(lambda x: diverse_experts_loss(x, target, offsets=self.offsets), [logits])
        module = DiverseExpertsLoss(COUNTS)
        torch.testing.assert_close(
            module(logits, target), diverse_experts_loss(logits, target, offsets=module.offsets), rtol=0, atol=0
        )
        half = module(logits.detach().half(), target)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half.double(), module(logits.detach(), target), rtol=1e-3, atol=1e-3)
        assert module.state_dict() == {}

    def test_empty_batch_is_a_differentiable_zero(self) -> None:
        logits = randn(0, 3, 4).requires_grad_()
        loss = diverse_experts_loss(logits, torch.zeros(0, dtype=torch.long), offsets=self.offsets)
        loss.backward()
        assert float(loss.detach()) == 0.0

    def test_bad_input_is_named(self) -> None:
        target = labels(4, 4)
        with pytest.raises(ShapeError, match=r"shape \(N, 3, 4\).*got \(4, 2, 4\).*as many exponents as"):
            diverse_experts_loss(randn(4, 2, 4), target, offsets=self.offsets)
        with pytest.raises(ShapeError, match=r"\(N, experts, classes\)"):
            diverse_experts_loss(randn(4, 4), target, offsets=self.offsets)
        with pytest.raises(ShapeError, match="a multiple of N"):
            diverse_experts_loss(randn(5, 3, 4), target, offsets=self.offsets)
        with pytest.raises(TargetError, match="got 4"):
            diverse_experts_loss(randn(4, 3, 4), torch.tensor([0, 1, 2, 4]), offsets=self.offsets)
        with pytest.raises(NonFiniteError, match="expert_logits"):
            diverse_experts_loss(randn(4, 3, 4) * torch.nan, target, offsets=self.offsets)
        with pytest.raises(ValueError, match="reduction must be"):
            DiverseExpertsLoss(COUNTS, reduction="avg")  # type: ignore[arg-type]


class TestConfidentConsistencyLoss(LossContract):
    function = staticmethod(confident_consistency_loss)
    module = ConfidentConsistencyLoss
    hyper = {"offsets": prior_offsets(COUNTS).float()}
    module_hyper = {"class_counts": COUNTS}
    has_reduction = False
    student_prefix = "student_expert"
    teacher_prefix = "teacher_expert"

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        target = torch.arange(batch) % 4
        # a teacher that is right where the target is even, whatever the prior
        lift = 40.0 * torch.nn.functional.one_hot(target, 4) * (target % 2 == 0)[:, None]
        return {
            "student_expert_logits": randn(batch, 3, 4, dtype=dtype),
            "teacher_expert_logits": (randn(batch, 3, 4, seed=1) + lift[:, None]).to(dtype),
            "target": target,
        }

    def test_only_confident_samples_count_each_expert_by_its_own(self) -> None:
        arguments = self.inputs(batch=8)
        offsets = self.hyper["offsets"].double()
        strong, weak = arguments["student_expert_logits"] + offsets, arguments["teacher_expert_logits"] + offsets
        expected = torch.zeros((), dtype=torch.float64)
        for e in range(3):
            rows = weak[:, e].argmax(1) == arguments["target"]
            assert 0 < int(rows.sum()) < 8
            p, q = weak[rows, e].softmax(1), strong[rows, e].log_softmax(1)
            expected += (p * (p.log() - q)).sum(1).mean()
        torch.testing.assert_close(self.call(**arguments), expected)

    def test_correctness_is_judged_with_the_prior(self) -> None:
        raw = torch.tensor([[[0.0, 1.0]]])
        offsets = torch.tensor([[3.0, 0.0]])
        assert confident_instances(raw, torch.tensor([0]), offsets=offsets).tolist() == [[True]]
        assert confident_instances(raw, torch.tensor([1]), offsets=offsets).tolist() == [[False]]

    def test_no_confident_sample_gives_a_differentiable_zero(self) -> None:
        student = randn(2, 3, 4).requires_grad_()
        teacher = 40.0 * torch.nn.functional.one_hot(torch.tensor([[1] * 3] * 2), 4).double()
        loss = self.call(student_expert_logits=student, teacher_expert_logits=teacher, target=torch.tensor([0, 2]))
        loss.backward()
        assert float(loss.detach()) == 0.0
        assert float(student.grad.abs().sum()) == 0.0  # type: ignore[union-attr]

    def test_temperature_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="temperature must be a finite number above 0"):
            ConfidentConsistencyLoss(COUNTS, temperature=0.0)


class TestExperts:
    def test_batched_experts_equal_single_ones_in_value_and_gradient(self) -> None:
        torch.manual_seed(0)
        model = ExpertResNet((1, 2, 1), 8, (8, 4, 6), experts=3, num_classes=5).double().train()
        single = [model.expert(index) for index in range(3)]
        images = torch.rand(4, 3, 8, 8, dtype=torch.float64)
        together = model.expert_logits(images)
        assert together.shape == (4, 3, 5)
        apart = torch.cat([expert.expert_logits(images) for expert in single], 1)
        torch.testing.assert_close(together, apart)
        weights = randn(4, 3, 5)
        (together * weights).sum().backward()
        (apart * weights).sum().backward()
        own = dict(single[1].named_parameters())
        for name, parameter in model.named_parameters():
            if name.startswith(("stem", "layer1")):
                shared = sum(dict(expert.named_parameters())[name].grad for expert in single)
                torch.testing.assert_close(parameter.grad, shared)
            else:
                torch.testing.assert_close(parameter.grad.chunk(3)[1], own[name].grad)  # type: ignore[union-attr]

    def test_running_statistics_are_those_of_single_experts(self) -> None:
        model = expert_resnet8().train()
        single = model.expert(2)
        images = torch.rand(4, 3, 8, 8)
        model(images), single(images)
        whole, own = dict(model.named_buffers()), dict(single.named_buffers())
        torch.testing.assert_close(whole["layer3.0.bn2.running_var"].chunk(3)[2], own["layer3.0.bn2.running_var"])

    def test_output_is_the_mean_of_raw_logits(self) -> None:
        model, images = expert_resnet8().eval(), torch.rand(2, 3, 8, 8)
        torch.testing.assert_close(model(images), model.expert_logits(images).mean(1))
        assert float(model.expert_logits(images).abs().max()) <= 30.0 + 1e-4

    def test_experts_do_not_touch_each_other(self) -> None:
        model, images = expert_resnet8().train(), torch.rand(4, 3, 8, 8)
        features = model.shared(images).detach()
        model.private(features)[:, 0].square().sum().backward()
        for name, parameter in model.named_parameters():
            if not name.startswith(("stem", "layer1")):
                mine, *others = parameter.grad.chunk(3)  # type: ignore[union-attr]
                assert float(mine.abs().sum()) > 0, name
                assert all(float(other.abs().sum()) == 0 for other in others), name

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="two or more stages"):
            ExpertResNet((1,), 8, (8,), num_classes=3)
        with pytest.raises(ShapeError, match="between 0 and 2, got 3"):
            expert_resnet8().expert(3)


class TestViews:
    def test_two_views_of_one_image(self) -> None:
        image = torch.rand(3, 8, 8)
        views = TwoViews(weak=torch.nn.Identity(), strong={"type": Cutout, "length": 3})(image)
        assert views.shape == (2, 3, 8, 8)
        torch.testing.assert_close(views[0], image)
        assert int((views[1] == 0).all(0).sum()) in range(1, 10)

    def test_recipes_keep_size_and_range(self) -> None:
        for transform, size in ((weak_cifar(), 32), (strong_cifar(), 32), (strong_digits(), 8)):
            for seed in range(20):
                torch.manual_seed(seed)
                result = transform(torch.rand(3, size, size))
                assert result.shape == (3, size, size)
                assert 0.0 <= float(result.min()) <= float(result.max()) <= 1.0

    def test_views_of_unlike_size_are_refused(self) -> None:
        with pytest.raises(ShapeError, match="one size"):
            TwoViews(weak=torch.nn.Identity(), strong=lambda image: image[:, 1:])(torch.rand(3, 8, 8))

    def test_pick_view_and_call_agree_on_the_layout(self) -> None:
        views = torch.rand(3, 2, 3, 8, 8)
        model = expert_resnet8().eval()
        rows = TwoViewCall().capture(model, {"inputs": views}, "inputs")
        for index in (0, 1):
            torch.testing.assert_close(PickView(index)(rows), model(views[:, index]))
        with pytest.raises(ShapeError, match="TwoViewCall"):
            PickView(0)(rows[:5])
        with pytest.raises(ValueError, match="index must lie between 0 and views - 1 = 1"):
            PickView(2)


class TestConfig:
    def test_a_step_of_the_digits_config(self) -> None:
        config = load_config("vision/mdcs/digits")
        distiller = build(config.model).train()
        losses = distiller(torch.rand(6, 2, 3, 8, 8), labels(6, 10))
        assert losses.keys() == {"loss/diversity", "loss/consistency"}
        sum(losses.values()).backward()
        assert all(parameter.grad is not None for parameter in distiller.student.parameters())
        assert distiller.eval()(torch.rand(2, 3, 8, 8), mode="predict").shape == (2, 10)

    def test_consistency_teaches_the_strong_view_alone(self) -> None:
        model = expert_resnet8().eval()  # batch norm would mix the views
        distiller = Distiller(
            model,
            call=TwoViewCall(),
            matches={
                "consistency": Match(
                    ConfidentConsistencyLoss([1] * 10),
                    "experts",
                    Tap("experts", of="student"),
                    adapter=PickView(1),
                    teacher_adapter=PickView(0),
                )
            },
        )
        views = torch.rand(4, 2, 3, 8, 8, requires_grad=True)
        target = model(views[:, 0].detach()).argmax(1)
        distiller(views, target)["loss/consistency"].backward()
        assert float(views.grad[:, 0].abs().sum()) == 0.0  # type: ignore[index]
        assert float(views.grad[:, 1].abs().sum()) > 0.0  # type: ignore[index]

    def test_the_counts_in_the_configs_are_those_of_the_data(self) -> None:
        digits = load_config("vision/mdcs/digits")
        assert tuple(digits.class_counts) == build(digits.train_dataloader.dataset).class_counts
        cifar = load_config("vision/mdcs/resnet32_cifar100_lt")
        balanced = ImageArray(
            np.zeros((50_000, 1, 1, 1), np.uint8), np.repeat(np.arange(100), 500), [str(c) for c in range(100)]
        )
        assert tuple(cifar.class_counts) == LongTailed(balanced, imbalance=100.0).class_counts

    def test_losses_survive_a_copy(self) -> None:
        loss = copy.deepcopy(DiverseExpertsLoss(COUNTS))
        assert torch.isfinite(loss(randn(4, 3, 4), labels(4, 4)))
