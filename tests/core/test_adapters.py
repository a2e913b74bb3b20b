"""Adapters: shapes, the rule behind each, gradient into every parameter, and the sentence on a wrong input."""

from __future__ import annotations

import copy
import doctest
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from limbeck_core import adapters
from limbeck_core import functional as F
from limbeck_core.adapters import (
    AttentionFusion,
    Chain,
    ClassMap,
    ConvAdapter,
    GlobalPool,
    HintRegressor,
    LinearAdapter,
    MapToTokens,
    OFDAdapter,
    Paraphraser,
    Resize,
    ReviewFusion,
    SRRLAdapter,
    TokensToMap,
    Translator,
)
from limbeck_core.errors import ShapeError
from limbeck_core.losses import HierarchicalContextLoss


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# (adapter, input shape, output shape)
SINGLE = [
    (lambda: LinearAdapter(4, 6), (3, 4), (3, 6)),
    (lambda: LinearAdapter(4, 6, bias=False), (3, 5, 4), (3, 5, 6)),
    (lambda: ConvAdapter(4, 6), (3, 4, 5, 7), (3, 6, 5, 7)),
    (lambda: ConvAdapter(4, 6, 3, dims=1), (3, 4, 5), (3, 6, 5)),
    (lambda: ConvAdapter(4, 6, 3, dims=3, norm=True), (3, 4, 2, 3, 4), (3, 6, 2, 3, 4)),
    (lambda: OFDAdapter(4, 6), (3, 4, 5, 5), (3, 6, 5, 5)),
    (lambda: SRRLAdapter(4, 6), (3, 4, 5, 5), (3, 6, 5, 5)),
    (lambda: HintRegressor(4, 6, 8, 4), (3, 4, 8, 8), (3, 6, 4, 4)),
    (lambda: HintRegressor(4, 6, 4, 8), (3, 4, 4, 4), (3, 6, 8, 8)),
    (lambda: HintRegressor(4, 6, (7, 5), (4, 5)), (3, 4, 7, 5), (3, 6, 4, 5)),
    (lambda: Paraphraser(4, 2), (3, 4, 5, 5), (3, 2, 5, 5)),
    (lambda: Translator(4, 2), (3, 4, 5, 5), (3, 2, 5, 5)),
    (lambda: TokensToMap(2, 3), (3, 6, 4), (3, 4, 2, 3)),
    (MapToTokens, (3, 4, 2, 3), (3, 6, 4)),
    (GlobalPool, (3, 4, 2, 3, 2), (3, 4)),
    (lambda: Resize((2, 3)), (3, 4, 5, 5), (3, 4, 2, 3)),
]
IDS = [f"{index}-{type(build()).__name__}" for index, (build, _, _) in enumerate(SINGLE)]


@pytest.mark.parametrize(("build", "given", "expected"), SINGLE, ids=IDS)
def test_shape_and_gradient(build: Any, given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    adapter, features = build(), draw(*given).requires_grad_()
    output = adapter(features)
    assert tuple(output.shape) == expected
    # a plain sum has no gradient behind a batch normalisation
    (output * draw(*expected, seed=1)).sum().backward()
    reached = [p for name, p in adapter.named_parameters() if not name.startswith("decoder")]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (features, *reached))


@pytest.mark.parametrize(("build", "given", "expected"), SINGLE, ids=IDS)
def test_copy_pickle_and_repr(build: Any, given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    adapter = build().eval()
    features = draw(*given)
    for twin in (copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        torch.testing.assert_close(twin(features), adapter(features))
    assert type(adapter).__name__ in repr(adapter)


@pytest.mark.parametrize(("build", "given", "expected"), SINGLE, ids=IDS)
def test_empty_batch(build: Any, given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert tuple(build().eval()(torch.zeros(0, *given[1:])).shape) == (0, *expected[1:])


@pytest.mark.parametrize(
    ("adapter", "given", "message"),
    [
        (
            LinearAdapter(4, 6),
            (3, 5),
            r"LinearAdapter expects shape \(N, 4\) or \(N, L, 4\), got \(3, 5\): set in_feat",
        ),
        (LinearAdapter(4, 6), (3, 4, 5, 4), r"got \(3, 4, 5, 4\): .* MapToTokens"),
        (ConvAdapter(4, 6), (3, 5, 2, 2), r"ConvAdapter expects shape \(N, 4, H, W\), got \(3, 5, 2, 2\): set in_chan"),
        (ConvAdapter(4, 6, dims=3), (3, 4, 2, 2), r"ConvAdapter expects shape \(N, 4, D, H, W\), got \(3, 4, 2, 2\)"),
        (ConvAdapter(4, 6, dims=1), (3, 4), r"ConvAdapter expects shape \(N, 4, L\), got \(3, 4\)"),
        (OFDAdapter(4, 6), (3, 5, 2, 2), r"OFDAdapter expects shape \(N, 4, H, W\), got \(3, 5, 2, 2\)"),
        (SRRLAdapter(4, 6), (3, 4), r"SRRLAdapter expects shape \(N, 4, H, W\), got \(3, 4\)"),
        (HintRegressor(4, 6, 8, 4), (3, 5, 8, 8), r"HintRegressor expects shape \(N, 4, H, W\), got \(3, 5, 8, 8\)"),
        (HintRegressor(4, 6, 8, 4), (3, 4, 7, 8), r"maps of size \(8, 8\), got shape \(3, 4, 7, 8\): set student_size"),
        (Paraphraser(4, 2), (3, 5, 8, 8), r"Paraphraser expects shape \(N, 4, H, W\), got \(3, 5, 8, 8\)"),
        (Translator(4, 2), (3, 5, 8, 8), r"Translator expects shape \(N, 4, H, W\), got \(3, 5, 8, 8\)"),
        (
            TokensToMap(2, 3, prefix_tokens=1),
            (3, 6, 4),
            r"\(N, 7, D\) = 1 prefix tokens \+ 2 x 3 patches, got \(3, 6, 4\)",
        ),
        (MapToTokens(), (3, 4), r"MapToTokens expects maps \(N, C, \.\.\.\), got \(3, 4\): tap before the pooling"),
        (GlobalPool(), (3, 4), r"GlobalPool expects maps \(N, C, \.\.\.\), got \(3, 4\)"),
        (Resize(4), (3, 4, 5), r"Resize expects maps \(N, C, H, W\), got \(3, 4, 5\): .* TokensToMap"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_wrong_shape_names_expected_and_got(adapter: nn.Module, given: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        adapter(torch.zeros(*given))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LinearAdapter(0, 6), "in_features must be at least 1, got 0"),
        (lambda: ConvAdapter(4, -1), "out_channels must be at least 1, got -1"),
        (lambda: ConvAdapter(4, 6, 2), "kernel_size must be odd so that the spatial size stays, got 2"),
        (lambda: ConvAdapter(4, 6, dims=4), "dims must be 1, 2 or 3 spatial axes, got 4"),
        (lambda: HintRegressor(4, 6, 4, 7), r"no rule from student_size \(4, 4\) to teacher_size \(7, 7\): .* Resize"),
        (lambda: HintRegressor(4, 6, (8, 2), (4, 4)), r"no rule from student_size \(8, 2\)"),
        (lambda: HintRegressor(4, 6, 0, 4), r"student_size must be a positive number or \(height, width\), got 0"),
        (lambda: AttentionFusion(4, 6, 0), "mid_channels must be at least 1, got 0"),
        (lambda: ReviewFusion([4, 8], [6]), r"equally many stages, at least 1, got \[4, 8\], \[6\] and None"),
        (lambda: ReviewFusion([], []), r"equally many stages, at least 1"),
        (lambda: ReviewFusion([4], [6], out_sizes=[4, 8]), r"got \[4\], \[6\] and \[\(4, 4\), \(8, 8\)\]"),
        (lambda: TokensToMap(2, 0), "width must be at least 1, got 0"),
        (lambda: TokensToMap(2, 3, prefix_tokens=-1), "prefix_tokens must be 0 or more, got -1"),
        (lambda: Resize(4, mode="bicubic"), "mode must be 'bilinear', 'nearest' or 'area', got 'bicubic'"),
    ],
)
def test_wrong_arguments_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_conv_adapter_is_a_matrix_product_per_position() -> None:
    adapter, features = ConvAdapter(3, 5), draw(2, 3, 4, 4)
    expected = torch.einsum("oc,nchw->nohw", adapter.conv.weight[:, :, 0, 0], features) + adapter.conv.bias.view(
        5, 1, 1
    )
    torch.testing.assert_close(adapter(features), expected)


def test_normalisation_replaces_the_bias() -> None:
    assert ConvAdapter(3, 5).conv.bias is not None
    assert ConvAdapter(3, 5, norm=True).conv.bias is None


def test_ofd_adapter_has_normalised_output_without_activation() -> None:
    torch.manual_seed(0)
    adapter = OFDAdapter(64, 200)
    assert float(adapter.conv.weight.detach().std()) == pytest.approx(math.sqrt(2 / 200), rel=0.05)
    output = adapter(draw(8, 64, 4, 4)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(output.mean(1), torch.zeros(200), atol=1e-5, rtol=0)
    assert float(output.detach().min()) < 0


def test_srrl_adapter_ends_in_a_relu() -> None:
    output = SRRLAdapter(4, 6)(draw(8, 4, 4, 4))
    assert float(output.detach().min()) == 0
    assert float(output.detach().max()) > 0


@pytest.mark.parametrize(
    ("student", "teacher", "kind", "kernel"),
    [
        (8, 4, nn.Conv2d, (3, 3)),
        (4, 8, nn.ConvTranspose2d, (4, 4)),
        (5, 5, nn.Conv2d, (1, 1)),
        ((7, 5), (4, 5), nn.Conv2d, (4, 1)),
    ],
)
def test_hint_regressor_follows_the_size_rules(student: Any, teacher: Any, kind: type[nn.Module], kernel: Any) -> None:
    regressor = HintRegressor(3, 6, student, teacher)
    assert type(regressor.conv) is kind
    assert regressor.conv.kernel_size == kernel


def test_hint_regressor_activation_can_be_left_out() -> None:
    features = draw(4, 3, 5, 5)
    assert float(HintRegressor(3, 6, 5, 5)(features).detach().min()) == 0
    assert float(HintRegressor(3, 6, 5, 5, activation=False)(features).detach().min()) < 0


class TestAttentionFusion:
    def test_gates_blend_the_two_sides(self) -> None:
        """With the gates forced open on one side, the fused maps are that side."""
        stage = AttentionFusion(4, 6, 5).eval()
        features, residual = draw(2, 4, 4, 4), draw(2, 5, 2, 2, seed=1)
        enlarged = residual.repeat_interleave(2, 2).repeat_interleave(2, 3)
        nn.init.zeros_(stage.gate.weight)
        for bias, expected in (([-50.0, 50.0], enlarged), ([50.0, -50.0], stage.reduce(features))):
            stage.gate.bias.data = torch.tensor(bias)
            _, fused = stage(features, residual)
            torch.testing.assert_close(fused, expected)

    def test_gates_are_one_number_per_position(self) -> None:
        stage = AttentionFusion(4, 6, 5)
        assert tuple(stage.gate.weight.shape) == (2, 10, 1, 1)

    def test_both_results_take_the_asked_size(self) -> None:
        output, fused = AttentionFusion(4, 6, 5, fuse=False)(draw(2, 4, 4, 4), size=(7, 3))
        assert tuple(output.shape) == (2, 6, 7, 3)
        assert tuple(fused.shape) == (2, 5, 7, 3)

    def test_gradient_reaches_everything(self) -> None:
        stage = AttentionFusion(4, 6, 5)
        features, residual = draw(2, 4, 4, 4).requires_grad_(), draw(2, 5, 2, 2, seed=1).requires_grad_()
        output, _ = stage(features, residual)
        (output * draw(2, 6, 4, 4, seed=2)).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (features, residual, *stage.parameters()))

    def test_residual_is_checked(self) -> None:
        features = draw(2, 4, 4, 4)
        with pytest.raises(
            ShapeError, match=r"expects a residual of shape \(2, 5, H, W\), got none: pass the fused maps"
        ):
            AttentionFusion(4, 6, 5)(features)
        with pytest.raises(ShapeError, match=r"residual of shape \(2, 5, H, W\), got \(2, 4, 2, 2\)"):
            AttentionFusion(4, 6, 5)(features, draw(2, 4, 2, 2))
        with pytest.raises(ShapeError, match=r"fuse=False takes no residual, got one of shape \(2, 5, 2, 2\)"):
            AttentionFusion(4, 6, 5, fuse=False)(features, draw(2, 5, 2, 2))
        with pytest.raises(ShapeError, match=r"AttentionFusion expects shape \(N, 4, H, W\), got \(2, 3, 4, 4\)"):
            AttentionFusion(4, 6, 5)(draw(2, 3, 4, 4), draw(2, 5, 2, 2))


class TestReviewFusion:
    STAGES = ((2, 4, 8, 8), (2, 6, 4, 4), (2, 10))

    def features(self) -> list[Tensor]:
        return [draw(*shape, seed=index).requires_grad_() for index, shape in enumerate(self.STAGES)]

    def test_every_stage_gets_the_teachers_shape_in_order(self) -> None:
        fusion = ReviewFusion([4, 6, 10], [5, 7, 11], out_sizes=[16, 4, 1])
        outputs = fusion(self.features())
        assert [tuple(o.shape) for o in outputs] == [(2, 5, 16, 16), (2, 7, 4, 4), (2, 11)]

    def test_is_the_stages_run_from_the_deepest(self) -> None:
        fusion = ReviewFusion([4, 6], [5, 7], mid_channels=3).eval()
        shallow, deep = self.features()[:2]
        deepest, residual = fusion.stages[1](deep)
        shallowest, _ = fusion.stages[0](shallow, residual)
        for got, expected in zip(fusion([shallow, deep]), (shallowest, deepest), strict=True):
            torch.testing.assert_close(got, expected)

    def test_deeper_stages_reach_shallower_outputs_only(self) -> None:
        fusion, features = ReviewFusion([4, 6, 10], [5, 7, 11]), self.features()
        outputs = fusion(features)
        weights = draw(*outputs[0].shape, seed=9)
        grads = torch.autograd.grad((outputs[0] * weights).sum(), features, retain_graph=True)
        assert all(g.abs().sum() > 0 for g in grads)
        grads = torch.autograd.grad(outputs[2].square().sum(), features, allow_unused=True)
        assert grads[0] is None
        assert grads[1] is None

    def test_trains_with_its_loss(self) -> None:
        fusion, features = ReviewFusion([4, 6, 10], [5, 7, 11]), self.features()
        teacher = [draw(2, 5, 8, 8, seed=5), draw(2, 7, 4, 4, seed=6), draw(2, 11, seed=7)]
        HierarchicalContextLoss()(fusion(features), teacher).backward()
        assert all(p.grad is not None for p in (*features, *fusion.parameters()))

    def test_middle_width_is_capped(self) -> None:
        assert ReviewFusion([4, 6], [5, 7]).stages[0].mid_channels == 6
        assert ReviewFusion([4, 600], [5, 7]).stages[0].mid_channels == 512

    def test_number_of_stages_is_checked(self) -> None:
        fusion = ReviewFusion([4, 6], [5, 7])
        with pytest.raises(ShapeError, match=r"a sequence of 2 stages, shallow to deep, got \[\(2, 4, 8, 8\)\]: give"):
            fusion(self.features()[:1])
        with pytest.raises(ShapeError, match=r"a sequence of 2 stages, shallow to deep, got \(2, 4, 8, 8\)"):
            fusion(self.features()[0])


class TestParaphraser:
    def test_learns_to_reconstruct(self) -> None:
        torch.manual_seed(0)
        paraphraser, maps = Paraphraser(4, 2), draw(4, 4, 3, 3)
        optimizer = torch.optim.Adam(paraphraser.parameters(), lr=0.03)
        history = []
        for _ in range(25):
            optimizer.zero_grad()
            loss = F.hint_loss(paraphraser.reconstruct(maps), maps)
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        assert all(p.grad is not None for p in paraphraser.parameters())
        assert history[-1] < 0.8 * history[0]

    def test_mirrors_its_layers(self) -> None:
        paraphraser = Paraphraser(4, 2)
        kernels = [tuple(p.shape) for n, p in paraphraser.named_parameters() if n.endswith("weight")]
        encoder = [(4, 4, 3, 3), (2, 4, 3, 3), (2, 2, 3, 3)]
        decoder = [(2, 2, 3, 3), (2, 4, 3, 3), (4, 4, 3, 3)]  # transposed kernels name the input first
        assert kernels == encoder + decoder

    def test_norm_adds_batch_normalisation(self) -> None:
        kinds = [type(m) for m in Paraphraser(4, 2, norm=True).encoder]
        assert kinds == 3 * [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU]
        assert [type(m) for m in Translator(4, 2, norm=False).encoder] == 3 * [nn.Conv2d, nn.LeakyReLU]

    def test_factors_meet_in_the_loss(self) -> None:
        translator, paraphraser = Translator(3, 2), Paraphraser(4, 2)
        loss = F.factor_transfer_loss(translator(draw(2, 3, 5, 5)), paraphraser(draw(2, 4, 5, 5)), power=None)
        loss.backward()
        assert all(p.grad is not None for p in translator.parameters())
        assert all(p.grad is None for p in paraphraser.parameters())


def test_tokens_and_maps_are_inverse_in_row_order() -> None:
    maps = torch.arange(24.0).reshape(1, 4, 2, 3)
    tokens = MapToTokens()(maps)
    assert tokens[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5]
    torch.testing.assert_close(TokensToMap(2, 3)(tokens), maps)
    prefixed = torch.cat([torch.full((1, 2, 4), -1.0), tokens], 1)
    torch.testing.assert_close(TokensToMap(2, 3, prefix_tokens=2)(prefixed), maps)


def test_resize_by_area_averages_and_by_nearest_repeats() -> None:
    maps = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]])
    assert Resize(1, mode="area")(maps).item() == 3
    assert Resize((2, 4), mode="nearest")(maps)[0, 0].tolist() == [[0, 0, 2, 2], [4, 4, 6, 6]]
    # centres of four cells over two: 0, 0.5, 1.5, 2 of the way in steps of the distance
    assert Resize((1, 4))(maps[:, :, :1])[0, 0, 0].tolist() == [0, 0.5, 1.5, 2]
    assert Resize(2)(maps) is maps


def test_a_chain_is_a_sequential() -> None:
    chain = nn.Sequential(TokensToMap(2, 2, prefix_tokens=1), ConvAdapter(4, 6), Resize(4))
    assert tuple(chain(draw(3, 5, 4)).shape) == (3, 6, 4, 4)


def test_docstrings_run() -> None:
    results = doctest.testmod(adapters, extraglobs={"torch": torch})
    assert results.attempted >= 12
    assert results.failed == 0


class TestClassMap:
    def test_selects_and_reorders(self) -> None:
        logits = torch.arange(8.0).reshape(2, 4)
        assert torch.equal(ClassMap([3, 1])(logits), torch.tensor([[3.0, 1.0], [7.0, 5.0]]))

    def test_dense_logits(self) -> None:
        assert ClassMap([2, 0])(torch.randn(2, 3, 4, 5)).shape == (2, 2, 4, 5)

    def test_a_class_the_teacher_does_not_know(self) -> None:
        with pytest.raises(ValueError, match="the teacher does not know the class 'cats': did you mean 'cat'"):
            ClassMap.of(["dog", "cats"], ["cat", "dog"])

    @pytest.mark.parametrize("indices", [[], [0, 0], [-1, 2]])
    def test_indices_that_are_no_map(self, indices: list[int]) -> None:
        with pytest.raises(ValueError, match="one index >= 0 per class of the student, each once"):
            ClassMap(indices)

    def test_too_few_classes(self) -> None:
        with pytest.raises(ShapeError, match=r"at least 5 classes, got \(2, 3\)"):
            ClassMap([4])(torch.randn(2, 3))

    def test_is_no_state_of_the_student(self) -> None:
        assert not ClassMap([1, 0]).state_dict()


class TestChain:
    def test_one_after_the_other_from_configs(self) -> None:
        config = {"type": "limbeck_core.adapters.TokensToMap", "height": 2, "width": 3, "prefix_tokens": 1}
        chain = Chain([config, ConvAdapter(5, 6)])
        tokens = draw(2, 7, 5)
        assert torch.equal(chain(tokens), chain.adapters[1](TokensToMap(2, 3, prefix_tokens=1)(tokens)))
        assert {name for name, _ in chain.named_parameters()} == {"adapters.1.conv.weight", "adapters.1.conv.bias"}

    def test_nothing_is_no_chain(self) -> None:
        with pytest.raises(ValueError, match="needs at least one adapter, got none: leave the adapter out"):
            Chain([])
