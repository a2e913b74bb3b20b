"""SLA and its self-distillation: layout of views and joint labels, inference, and what trains what."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from limbeck_core import Distiller, Match, Tap
from limbeck_core.errors import ConfigError, LimbeckError, MatchError, NonFiniteError, ShapeError, TargetError
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.methods.sla import (
    TRANSFORMATIONS,
    AggregatedViews,
    LabelAugmentationLoss,
    LabelAugmented,
    RandomView,
    aggregated_logits,
    joint_target,
    label_augmentation_loss,
    number_of_views,
    single_view_logits,
    transformed_views,
)
from limbeck_vision.models import ImageCall, resnet8, resnet8_quarter
from loss_contract import labels, randn


def student(**options: object) -> LabelAugmented:
    backbone = {"type": resnet8_quarter, "num_classes": 10}
    return LabelAugmented(backbone, 10, **options)  # type: ignore[arg-type]


def sd(model: LabelAugmented) -> Distiller:
    return Distiller(
        model,
        task_loss=LabelAugmentationLoss(views=model.views),
        call=ImageCall(),
        matches={
            "single": Match(nn.CrossEntropyLoss(), "single", Tap("targets", of="batch")),
            "sd": Match(
                KLDivergenceLoss(),
                "single",
                Tap("joint", of="student"),
                teacher_adapter=AggregatedViews(model.views),
            ),
        },
    )


class TestViews:
    def test_rotations_are_rot90_next_to_each_other(self) -> None:
        images = randn(2, 3, 4, 4)
        views = transformed_views(images, "rotation")
        assert views.shape == (8, 3, 4, 4)
        assert views.is_contiguous()
        for image in range(2):
            for turn in range(4):
                torch.testing.assert_close(views[4 * image + turn], torch.rot90(images[image], turn, (1, 2)))

    @pytest.mark.parametrize("name", TRANSFORMATIONS)
    def test_batched_equals_one_image_at_a_time_and_view_0_is_the_image(self, name: str) -> None:
        images = randn(3, 3, 4, 4)
        views = transformed_views(images, name)
        assert len(views) == 3 * number_of_views(name)
        torch.testing.assert_close(views[:: number_of_views(name)], images)
        torch.testing.assert_close(views, torch.cat([transformed_views(image[None], name) for image in images]))

    @pytest.mark.parametrize("name", TRANSFORMATIONS)
    def test_no_two_views_are_alike(self, name: str) -> None:
        views = transformed_views(randn(1, 3, 4, 4), name).flatten(1)
        assert len({tuple(view.tolist()) for view in views}) == number_of_views(name)

    def test_half_turns_take_oblong_images(self) -> None:
        assert transformed_views(randn(1, 3, 4, 6), "half_turn").shape == (2, 3, 4, 6)

    def test_what_cannot_be_turned_or_recoloured_is_refused(self) -> None:
        with pytest.raises(ShapeError, match="quarter turns need square images.*half_turn"):
            transformed_views(randn(1, 3, 4, 6))
        with pytest.raises(ShapeError, match="exchanging colours needs images of 3 channels"):
            transformed_views(randn(1, 1, 4, 4), "color")
        with pytest.raises(ShapeError, match=r"images must have shape \(N, C, H, W\)"):
            transformed_views(randn(3, 4, 4))
        with pytest.raises(ConfigError, match="did you mean 'rotation'"):
            transformed_views(randn(1, 3, 4, 4), "rotations")

    def test_random_view_is_one_of_the_views(self) -> None:
        image = randn(3, 4, 4)
        views = transformed_views(image[None])
        torch.manual_seed(0)
        drawn = [RandomView()(image) for _ in range(40)]
        assert {next(j for j in range(4) if torch.equal(views[j], view)) for view in drawn} == {0, 1, 2, 3}


class TestLayout:
    def test_oracle_of_joint_labels_is_aggregated_to_the_label(self) -> None:
        """Fails for a transposed layout of rows or columns."""
        target = torch.tensor([2, 0, 1])
        oracle = one_hot(joint_target(target, views=4), 12).double()
        aggregated = aggregated_logits(oracle, views=4)
        torch.testing.assert_close(aggregated, one_hot(target, 3).double())
        transposed = oracle.reshape(3, 4, 3, 4).transpose(0, 1).reshape(12, 12)
        assert not torch.equal(aggregated_logits(transposed, views=4), aggregated)

    def test_aggregation_by_hand(self) -> None:
        logits = randn(6, 6)
        aggregated = aggregated_logits(logits, views=2)
        for n in range(3):
            for k in range(3):
                expected = (logits[2 * n, 2 * k] + logits[2 * n + 1, 2 * k + 1]) / 2
                torch.testing.assert_close(aggregated[n, k], expected)
        torch.testing.assert_close(single_view_logits(logits, views=2), logits[::2, ::2])

    def test_renaming_the_views_changes_nothing(self) -> None:
        logits, order = randn(8, 12).reshape(2, 4, 3, 4), torch.tensor([2, 0, 3, 1])
        renamed = logits[:, order][..., order].reshape(8, 12)
        torch.testing.assert_close(
            aggregated_logits(renamed, views=4), aggregated_logits(logits.reshape(8, 12), views=4)
        )

    def test_numbers_that_do_not_divide_are_refused(self) -> None:
        for shape in ((7, 8), (8, 7), (8, 0)):
            with pytest.raises(ShapeError, match=r"joint_logits must have shape \(N \* 4, C \* 4\)"):
                aggregated_logits(randn(*shape), views=4)
        with pytest.raises(ValueError, match="views must be 1 or more"):
            aggregated_logits(randn(4, 4), views=0)


class TestLabelAugmentationLoss:
    def test_one_view_is_cross_entropy(self) -> None:
        logits, target = randn(5, 3), labels(5, 3)
        torch.testing.assert_close(label_augmentation_loss(logits, target, views=1), cross_entropy(logits, target))

    def test_reductions_and_the_sum_over_views(self) -> None:
        logits, target = randn(12, 20), labels(3, 5)
        each = label_augmentation_loss(logits, target, views=4, reduction="none")
        assert each.shape == (3,)
        torch.testing.assert_close(label_augmentation_loss(logits, target, views=4), each.mean())
        torch.testing.assert_close(label_augmentation_loss(logits, target, views=4, over_views="sum"), 4 * each.mean())
        torch.testing.assert_close(LabelAugmentationLoss(4, reduction="sum")(logits, target), each.sum())

    def test_gradient(self) -> None:
        logits = randn(8, 12).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: label_augmentation_loss(x, labels(2, 3), views=4), [logits])

    def test_half_precision_is_computed_in_float32(self) -> None:
        logits, target = randn(8, 12, dtype=torch.float16), labels(2, 3)
        loss = label_augmentation_loss(logits, target, views=4)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, label_augmentation_loss(logits.float(), target, views=4))

    def test_empty_batch_is_a_differentiable_zero(self) -> None:
        logits = randn(0, 12).requires_grad_()
        loss = label_augmentation_loss(logits, torch.zeros(0, dtype=torch.long), views=4)
        loss.backward()
        assert float(loss.detach()) == 0.0

    def test_bad_input_is_named(self) -> None:
        logits = randn(8, 12)
        with pytest.raises(TargetError, match="labels from 0 to 2.*got 3"):
            label_augmentation_loss(logits, torch.tensor([0, 3]), views=4)
        with pytest.raises(ShapeError, match="target must have shape"):
            label_augmentation_loss(logits, torch.tensor([0]), views=4)
        with pytest.raises(NonFiniteError, match="joint_logits"):
            label_augmentation_loss(logits * torch.nan, torch.tensor([0, 1]), views=4)
        with pytest.raises(ValueError, match="over_views must be 'mean' or 'sum', got 'max'"):
            LabelAugmentationLoss(4, over_views="max")  # type: ignore[arg-type]


class TestModel:
    def test_training_gives_joint_logits_and_evaluation_classes(self) -> None:
        model, images = student(), torch.rand(2, 3, 8, 8)
        assert model.train()(images).shape == (8, 40)
        assert model.eval()(images).shape == (2, 10)

    def test_the_three_ways_of_inference(self) -> None:
        model = student(distilled_head=True).eval()
        images = torch.rand(2, 3, 8, 8)
        views = model.joint(model.trunk(model.normalize(transformed_views(images))))
        torch.testing.assert_close(model.class_logits(images, "aggregated"), aggregated_logits(views, views=4))
        torch.testing.assert_close(model.class_logits(images, "single"), single_view_logits(views, views=4))
        torch.testing.assert_close(model.class_logits(images, "distilled"), model(images))

    def test_views_are_made_before_the_normalisation(self) -> None:
        """Exchanged colours are those of the image: a grey image looks alike in all its views."""
        model = LabelAugmented(resnet8(num_classes=3), 3, transformation="color").eval()
        grey = torch.rand(1, 1, 8, 8).expand(-1, 3, -1, -1)
        views = model.normalize(transformed_views(grey, "color"))
        torch.testing.assert_close(views, views[:1].expand(6, -1, -1, -1))

    def test_alone_is_the_plain_network_of_the_second_head(self) -> None:
        model = student(distilled_head=True).eval()
        images = torch.rand(2, 3, 8, 8)
        alone = model.alone()
        assert sorted(alone.state_dict()) == sorted(resnet8_quarter(num_classes=10).state_dict())
        torch.testing.assert_close(alone(images), model(images))
        with pytest.raises(ConfigError, match="distilled_head=True"):
            student().alone()

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="ResNet has no linear classifier 'head': .*fc"):
            student(classifier="head")
        with pytest.raises(ConfigError, match="inference must be"):
            student(inference="mean")
        with pytest.raises(ConfigError, match="needs the second head"):
            student(inference="distilled")
        with pytest.raises(MatchError, match="how its input is normalised"):
            LabelAugmented(_Bare(), 3)


class _Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3)


class TestDistillation:
    def batch(self) -> tuple[Tensor, Tensor]:
        return torch.rand(4, 3, 8, 8), labels(4, 10)

    def test_losses_are_those_of_the_equations(self) -> None:
        torch.manual_seed(0)
        model = student(distilled_head=True).double()
        distiller = sd(model).train()
        images, target = self.batch()
        losses = distiller(images.double(), target)
        embeddings = model.trunk(model.normalize(transformed_views(images.double())))
        joint, single = model.joint(embeddings), model.single(embeddings[::4])  # type: ignore[misc]
        soft = aggregated_logits(joint, views=4).softmax(1)
        torch.testing.assert_close(losses["loss/task"], cross_entropy(joint, joint_target(target, views=4)))
        torch.testing.assert_close(losses["loss/single"], cross_entropy(single, target))
        torch.testing.assert_close(losses["loss/sd"], (soft * (soft.log() - single.log_softmax(1))).sum(1).mean())

    def test_the_joint_head_is_not_pulled_by_its_student(self) -> None:
        model = student(distilled_head=True)
        images, target = self.batch()
        sd(model).train()(images, target)["loss/sd"].backward()
        assert model.joint.weight.grad is None
        assert model.single is not None
        assert float(model.single.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]

    def test_one_step_trains_all_and_prediction_gives_classes(self) -> None:
        distiller = sd(student(distilled_head=True)).train()
        images, target = self.batch()
        sum(distiller(images, target).values()).backward()  # type: ignore[union-attr]
        assert all(parameter.grad is not None for parameter in distiller.parameters())
        assert distiller.eval()(images, mode="predict").shape == (4, 10)

    def test_an_oblong_batch_is_refused_with_the_way_out(self) -> None:
        with pytest.raises(LimbeckError, match="half_turn"):
            sd(student(distilled_head=True)).train()(torch.rand(2, 3, 8, 6), labels(2, 10))
