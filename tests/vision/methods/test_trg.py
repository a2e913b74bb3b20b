"""TRG: tokens of maps and transformers, the three losses by hand, and image sizes that a transformer cannot take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck_core import Distiller, Match
from limbeck_core.build import build
from limbeck_core.engine.config import load_config
from limbeck_core.errors import ShapeError
from limbeck_core.schedules import Constant, Progress
from limbeck_vision.methods.trg import (
    InnerContextLoss,
    TokenCall,
    TokenContrastLoss,
    TokenGraphLoss,
    as_tokens,
    check_image_size,
    inner_context_loss,
    sample_tokens,
    token_contrast_loss,
    token_graph_loss,
    token_pair,
)
from limbeck_vision.models import resnet8, timm_model, torchvision_model
from loss_contract import LossContract, labels, randn


def pooled(loss: Any, **hyper: Any) -> Any:
    """A function of features that takes all tokens, as the modules do with ``tokens_per_image=None``."""

    def function(student_features: Tensor, teacher_features: Tensor, **changed: Any) -> Tensor:
        student, teacher = sample_tokens(*token_pair(student_features, teacher_features), None)
        return loss(student, teacher, **{**hyper, **changed})

    return function


class OnFeatures(LossContract):
    has_reduction = False

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        return {
            "student_features": randn(batch, 5, 6, dtype=dtype),
            "teacher_features": randn(batch, 5, 6, seed=1, dtype=dtype),
        }

    def test_nan_is_named_not_spread(self) -> None:
        """The loss sees tokens of all images at once and names them."""
        for name in ("student_features", "teacher_features"):
            arguments = self.inputs()
            arguments[name][1] = torch.nan
            with pytest.raises(ValueError, match=name.replace("features", "tokens")):
                self.call(**arguments)


class TestTokenGraphLoss(OnFeatures):
    function = staticmethod(pooled(token_graph_loss, neighbours=3, bandwidth=0.5))
    module = TokenGraphLoss
    module_hyper = {"neighbours": 3, "bandwidth": 0.5, "tokens_per_image": None}

    def test_by_hand(self) -> None:
        student, teacher = randn(6, 3), randn(6, 4, seed=1)
        loss = token_graph_loss(student, teacher, neighbours=2, bandwidth=0.7, unit_length=False)
        distances = [torch.cdist(tokens, tokens) for tokens in (student, teacher)]
        nearest = [set(torch.argsort(distances[1][j])[1:3].tolist()) for j in range(6)]
        rows = []
        for i in range(6):
            support = [j for j in range(6) if i in nearest[j]]
            if support:
                s, t = (torch.exp(-d[i, support].square() / 1.4).softmax(0) for d in distances)
                rows.append((t * (t / s).log()).sum())
        torch.testing.assert_close(loss, torch.stack(rows).mean())

    def test_printed_form(self) -> None:
        student, teacher = randn(5, 3), randn(5, 3, seed=1)
        loss = token_graph_loss(
            student, teacher, neighbours=1, bandwidth=1.0, unit_length=False, direction="student_first", support="all"
        )
        squared = torch.cdist(teacher, teacher).square() + torch.eye(5).double() * 1e9
        linked = torch.zeros(5, 5, dtype=torch.bool)
        linked[squared.argmin(1), torch.arange(5)] = True
        rows = [
            torch.where(linked, torch.exp(-torch.cdist(x, x).square() / 2), 0.0).softmax(1) for x in (student, teacher)
        ]
        torch.testing.assert_close(loss, (rows[0] * (rows[0] / rows[1]).log()).sum(1).mean())

    def test_the_default_bandwidth_takes_the_scale_out(self) -> None:
        tokens = randn(6, 3)
        assert float(token_graph_loss(3 * tokens, tokens, unit_length=False)) < 1e-12
        assert float(token_graph_loss(3 * tokens, tokens, unit_length=False, bandwidth=1.0)) > 1e-3

    def test_one_order_of_tokens_for_both_does_not_matter(self) -> None:
        student, teacher, order = randn(9, 4), randn(9, 4, seed=1), torch.randperm(9)
        torch.testing.assert_close(
            token_graph_loss(student, teacher, neighbours=3),
            token_graph_loss(student[order], teacher[order], neighbours=3),
        )

    def test_more_neighbours_than_tokens_and_a_single_token(self) -> None:
        student, teacher = randn(4, 3), randn(4, 3, seed=1)
        torch.testing.assert_close(
            token_graph_loss(student, teacher, neighbours=99), token_graph_loss(student, teacher, neighbours=3)
        )
        assert float(token_graph_loss(student[:1], teacher[:1])) == 0.0

    def test_equal_tokens_give_no_nan(self) -> None:
        tokens = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
        token_graph_loss(tokens, randn(4, 3)).backward()
        assert torch.isfinite(tokens.grad).all()  # type: ignore[arg-type]

    def test_options_are_checked(self) -> None:
        for options, message in (
            ({"neighbours": 0}, "neighbours must be 1 or more"),
            ({"bandwidth": 0.0}, "bandwidth must be a finite number above 0"),
            ({"direction": "both"}, "direction must be"),
            ({"support": "some"}, "support must be"),
            ({"tokens_per_image": 0}, "tokens_per_image must be 1 or more"),
            ({"patch_size": 0}, "patch_size must be 1 or more"),
        ):
            with pytest.raises(ValueError, match=message):
                TokenGraphLoss(**options)  # type: ignore[arg-type]


class TestTokenContrastLoss(OnFeatures):
    """The module draws projections of its own, so that it has its tests below."""

    function = staticmethod(pooled(token_contrast_loss))
    module = TokenContrastLoss
    zero_at_equality = False

    def build(self, **extra: Any) -> nn.Module:
        module = TokenContrastLoss(6, 6, width=6, temperature=0.1, tokens_per_image=None, **extra)
        for projection in (module.student_projection, module.teacher_projection):
            nn.init.eye_(projection.weight)
        return module

    def test_one_order_of_tokens_and_the_diagonal(self) -> None:
        tokens, order = randn(9, 4), torch.randperm(9)
        torch.testing.assert_close(
            token_contrast_loss(tokens, tokens), token_contrast_loss(tokens[order], tokens[order])
        )
        assert float(token_contrast_loss(tokens, tokens)) < float(token_contrast_loss(tokens, tokens[order]))

    def test_both_projections_learn_and_the_teacher_does_not(self) -> None:
        module = TokenContrastLoss(6, 8, width=5)
        teacher = randn(2, 4, 8, dtype=torch.float32).requires_grad_()
        module(randn(2, 4, 6, dtype=torch.float32), teacher).backward()
        assert teacher.grad is None
        assert all(float(parameter.grad.abs().sum()) > 0 for parameter in module.parameters())  # type: ignore[union-attr]

    def test_the_temperature_falls_over_the_run(self) -> None:
        module = TokenContrastLoss(6, 6)
        found = []
        for step in (0, 50, 99):
            module.set_progress(Progress(step=step, max_steps=100))
            found.append(module.temperature(module._progress))
        assert found[0] == 0.5
        assert 0.07 < found[2] < 0.075
        assert found[0] > found[1] > found[2]
        assert TokenContrastLoss(6, 6, temperature=0.2).temperature == Constant(0.2)

    def test_widths_are_named(self) -> None:
        with pytest.raises(ShapeError, match="teacher's tokens have width 32.*teacher_width=8.*set teacher_width=32"):
            TokenContrastLoss(6, 8, patch_size=2)(randn(2, 4, 6), randn(2, 8, 4, 4))
        with pytest.raises(ShapeError, match="one width to be compared"):
            token_contrast_loss(randn(4, 3), randn(4, 5))


class TestInnerContextLoss(LossContract):
    function = staticmethod(inner_context_loss)
    module = InnerContextLoss
    student_prefix = "student"

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        return {
            "student_tokens": randn(batch, 5, 6, dtype=dtype),
            "teacher_tokens": randn(batch, 5, 6, seed=1, dtype=dtype),
        }

    def build(self, **extra: Any) -> nn.Module:
        return _Renamed(InnerContextLoss(**extra))

    def test_by_hand_with_unlike_widths(self) -> None:
        student, teacher = randn(2, 5, 4), randn(2, 5, 9, seed=1)
        context = [(x @ x.mT / x.shape[-1] ** 0.5).softmax(-1) for x in (student, teacher)]
        torch.testing.assert_close(inner_context_loss(student, teacher), (context[0] - context[1]).square().mean())


class _Renamed(nn.Module):
    """The module under the argument names of the function."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, student_tokens: Tensor, teacher_tokens: Tensor) -> Tensor:
        result: Tensor = self.loss(student_tokens, teacher_tokens)
        return result


class TestTokens:
    def test_patches_hold_the_values_of_the_map(self) -> None:
        features = randn(1, 2, 4, 6)
        tokens = as_tokens(features, patch_size=2)
        assert tokens.shape == (1, 6, 8)
        torch.testing.assert_close(tokens[0, 4], features[0, :, 2:4, 2:4].flatten())

    def test_maps_that_do_not_divide_are_pooled(self) -> None:
        assert as_tokens(randn(1, 2, 7, 5), patch_size=3).shape == (1, 2, 18)
        with pytest.raises(ShapeError, match="smaller than a patch of 3 x 3: lower patch_size"):
            as_tokens(randn(1, 2, 2, 5), patch_size=3)

    def test_class_tokens_are_left_out(self) -> None:
        tokens = randn(2, 5, 3)
        torch.testing.assert_close(as_tokens(tokens, prefix_tokens=1), tokens[:, 1:])
        with pytest.raises(ShapeError, match="no patch token after 5 prefix tokens"):
            as_tokens(tokens, prefix_tokens=5)
        with pytest.raises(ShapeError, match="tap before the pooling"):
            as_tokens(randn(2, 5))

    def test_the_finer_grid_is_pooled(self) -> None:
        coarse, fine = randn(2, 3, 2, 2), randn(2, 5, 4, 4)
        student, teacher = token_pair(coarse, fine)
        assert (student.shape, teacher.shape) == ((2, 4, 3), (2, 4, 5))
        torch.testing.assert_close(teacher[0, 0], fine[0, :, :2, :2].mean((1, 2)))

    def test_transformer_beside_a_map(self) -> None:
        student, teacher = token_pair(randn(2, 17, 3), randn(2, 5, 8, 8), student_prefix_tokens=1)
        assert (student.shape, teacher.shape) == ((2, 16, 3), (2, 16, 5))

    def test_positions_that_cannot_be_matched_are_named(self) -> None:
        with pytest.raises(ShapeError, match="set prefix_tokens to the number of class and register tokens"):
            token_pair(randn(2, 17, 3), randn(2, 5, 4, 4))
        with pytest.raises(ShapeError, match="feed both models the same images"):
            token_pair(randn(2, 4, 3), randn(3, 4, 3))

    def test_sampled_positions_are_the_same_for_both(self) -> None:
        positions = torch.arange(12.0).reshape(2, 6, 1)
        torch.manual_seed(0)
        student, teacher = sample_tokens(positions, 10 * positions.expand(-1, -1, 2), 3)
        assert (student.shape, teacher.shape) == ((6, 1), (6, 2))
        torch.testing.assert_close(10 * student.expand(-1, 2), teacher)
        assert len(set(student.flatten().tolist())) == 6
        assert (student[:3] < 6).all()

    def test_another_sample_changes_the_loss_mildly(self) -> None:
        loss = TokenGraphLoss(tokens_per_image=8)
        student, teacher = randn(16, 16, 6), randn(16, 16, 6, seed=1)
        values = torch.stack([loss(student, teacher) for _ in range(8)])
        assert float(values.std() / values.mean()) < 0.2


class TestImageSizes:
    @pytest.fixture
    def vit(self) -> nn.Module:
        return timm_model("vit_tiny_patch16_224", 10, img_size=32, patch_size=8, depth=1)

    def test_a_transformer_of_another_size_says_so(self, vit: nn.Module) -> None:
        check_image_size(vit, torch.zeros(1, 3, 32, 32))
        with pytest.raises(ShapeError, match=r"takes images of 32 x 32, got 40 x 32: .*img_size=\(40, 32\)"):
            check_image_size(vit, torch.zeros(1, 3, 40, 32))

    def test_patches_that_do_not_divide(self) -> None:
        dynamic = timm_model("vit_tiny_patch16_224", 10, patch_size=8, depth=1, dynamic_img_size=True)
        check_image_size(dynamic, torch.zeros(1, 3, 48, 32))
        with pytest.raises(ShapeError, match="patches of 8 x 8, into which 36 x 32 does not divide"):
            check_image_size(dynamic, torch.zeros(1, 3, 36, 32))

    def test_torchvision_and_models_of_any_size(self) -> None:
        with torch.device("meta"):
            vit = torchvision_model("vit_b_16", 10)
        with pytest.raises(ShapeError, match=r"VisionTransformer takes images of 224 x 224, got 32 x 32"):
            check_image_size(vit, torch.zeros(1, 3, 32, 32))
        check_image_size(resnet8(num_classes=3), torch.zeros(1, 3, 20, 12))

    def test_the_distiller_stops_before_the_model_fails(self, vit: nn.Module) -> None:
        distiller = Distiller(
            vit,
            resnet8(num_classes=10),
            {"inner": Match(InnerContextLoss(student_prefix_tokens=1), "norm", "layer3")},
            call=TokenCall(),
        )
        assert torch.isfinite(distiller(torch.rand(2, 3, 32, 32))["loss/inner"])
        with pytest.raises(ShapeError, match="VisionTransformer takes images of 32 x 32, got 24 x 24"):
            distiller(torch.rand(2, 3, 24, 24))


def test_a_step_of_the_digits_control() -> None:
    """Of a config with two teachers, since the files of trained ones are not here."""
    model = load_config("vision/trg/digits_untrained").model
    model.teacher.trained = dict(type=resnet8, num_classes=10, normalization=None)
    distiller = build(model).train()
    distiller.set_progress(Progress(step=0, max_steps=10))
    losses = distiller(torch.rand(4, 3, 8, 8), labels(4, 10))
    assert losses.keys() == {"loss/task", "loss/kd", "loss/inner", "loss/local", "loss/contrast"}
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in distiller.parameters())
