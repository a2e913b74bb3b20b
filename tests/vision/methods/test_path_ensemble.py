"""The sum of the paths is the transformer; pruning, weights and taps change what they say they change and no more."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from limbeck_core import Distiller, Match, Tap
from limbeck_core.errors import ConfigError, DataError
from limbeck_core.losses import HiddenStateMSELoss, KLDivergenceLoss
from limbeck_vision.methods.path_ensemble import EnsembleScale, PathEnsembleViT, path_accuracies
from limbeck_vision.models import ImageCall, timm_model
from loss_contract import randn

SMALL = dict(img_size=8, patch_size=4, embed_dim=12, depth=3, num_heads=2)


def vit(**options: Any) -> Any:
    torch.manual_seed(0)
    model = timm_model("vit_tiny_patch16_224", 5, **{**SMALL, **options}).double().eval()
    for parameter in model.parameters():  # zeros of the initialisation would hide mistakes
        parameter.data.normal_(0, 0.3)
    return model


IMAGES = randn(4, 3, 8, 8)
KINDS: list[dict[str, Any]] = [
    {},
    {"init_values": 0.1},
    {"global_pool": "avg"},
    {"no_embed_class": True, "reg_tokens": 2},
    {"qk_norm": True, "pre_norm": True},
    {"class_token": False, "global_pool": "avg", "fc_norm": False},
]


@pytest.mark.parametrize("options", KINDS, ids=lambda options: "+".join(options) or "plain")
def test_the_sum_of_the_paths_is_the_transformer(options: dict[str, Any]) -> None:
    model = vit(**options)
    ensemble = PathEnsembleViT(model)
    expected = model(IMAGES)
    torch.testing.assert_close(ensemble(IMAGES), expected, atol=1e-10, rtol=1e-10)
    components = dict(ensemble.components(IMAGES))
    assert tuple(components) == ensemble.component_names == ("input", *_names(3))
    total = torch.stack(list(components.values())).sum(0)
    torch.testing.assert_close(ensemble.classify(total)[1], expected, atol=1e-10, rtol=1e-10)


def _names(depth: int) -> list[str]:
    return [f"{kind}{layer}" for layer in range(1, depth + 1) for kind in ("attention", "ffn")]


def test_gradients_are_the_transformers_too() -> None:
    model = vit()
    ensemble = PathEnsembleViT(copy.deepcopy(model), scale="channel", boundaries=(1, 2))
    model(IMAGES).square().sum().backward()
    ensemble(IMAGES).square().sum().backward()
    for (name, theirs), ours in zip(model.named_parameters(), ensemble.vit.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-10, rtol=1e-10, msg=name)


def test_released_deit_architectures_are_accepted() -> None:
    with torch.device("meta"):
        for name in ("deit_small_patch16_224", "deit3_small_patch16_224", "vit_base_patch16_224"):
            assert PathEnsembleViT(timm_model(name, 10)).depth == 12


@pytest.mark.parametrize("granularity", ["channel", "scalar"])
@pytest.mark.parametrize("grouping", ["component", "layer"])
def test_scale_is_neutral_at_first_and_weighs_what_it_names(granularity: Any, grouping: Any) -> None:
    model = vit()
    ensemble = PathEnsembleViT(model, scale=granularity, grouping=grouping).double()
    assert torch.equal(ensemble(IMAGES), model(IMAGES))
    assert ensemble.scale is not None
    assert ensemble.scale.weight.shape == (7 if grouping == "component" else 4, 12 if granularity == "channel" else 1)
    with torch.no_grad():
        ensemble.scale.weight[-1] = 0.5
    halved = ("ffn3",) if grouping == "component" else ("attention3", "ffn3")
    total = sum(
        (0.5 if name in halved else 1.0) * component for name, component in PathEnsembleViT(model).components(IMAGES)
    )
    torch.testing.assert_close(ensemble(IMAGES), ensemble.classify(total)[1])
    summary = ensemble.scale.summary()
    assert tuple(summary) == ensemble.groups
    assert [value for name, value in summary.items() if value != 1.0] == [0.5]


def test_pruning_changes_the_final_sum_alone() -> None:
    model = vit()
    ensemble = PathEnsembleViT(model, pruned=["layer1", "input"])
    assert ensemble.pruned == ("input", "attention1", "ffn1")
    components = dict(PathEnsembleViT(model).components(IMAGES))  # later layers read the unpruned stream
    total = torch.stack([components[name] for name in _names(3)[2:]]).sum(0)
    torch.testing.assert_close(ensemble(IMAGES), ensemble.classify(total)[1])
    ensemble.pruned = ()
    torch.testing.assert_close(ensemble(IMAGES), model(IMAGES))


def test_what_nothing_reads_is_not_computed() -> None:
    ensemble = PathEnsembleViT(vit(), pruned=["ffn3", "attention3"])
    called = []
    ensemble.vit.blocks[2].register_forward_hook(lambda *_: called.append(2))
    ensemble.vit.blocks[2].attn.register_forward_hook(lambda *_: called.append(2))
    ensemble(IMAGES)
    assert called == []


def test_a_weight_of_zero_is_pruning() -> None:
    ensemble = PathEnsembleViT(vit(), scale="scalar").double()
    assert ensemble.scale is not None
    with torch.no_grad():
        ensemble.scale.weight[ensemble.groups.index("ffn2")] = 0.0
    pruned = PathEnsembleViT(ensemble.vit, pruned=["ffn2"])
    torch.testing.assert_close(ensemble(IMAGES), pruned(IMAGES))


def test_partial_sums_are_classified_as_the_last() -> None:
    model = vit()
    ensemble = PathEnsembleViT(model, boundaries=(1, 2), pruned=["ffn1"])
    seen: dict[str, Tensor] = {}
    for kind in ("partial_logits", "partial_features"):
        for name, place in getattr(ensemble, kind).items():
            place.register_forward_hook(lambda _m, _i, out, key=(kind, name): seen.__setitem__(key, out))
    whole = ensemble(IMAGES)
    components = dict(ensemble.components(IMAGES))
    for layer in (1, 2):
        kept = [name for name in ensemble.component_names[: 2 * layer + 1] if name != "ffn1"]
        features, logits = ensemble.classify(torch.stack([components[name] for name in kept]).sum(0))
        torch.testing.assert_close(seen["partial_logits", str(layer)], logits)
        torch.testing.assert_close(seen["partial_features", str(layer)], features)
    assert torch.equal(seen["partial_logits", "final"], whole)
    assert "partial_logits" not in {name.split(".")[0] for name in ensemble.state_dict()}


def test_long_paths_teach_short_ones() -> None:
    """Loss and gradient of the match: by hand, with the longer path detached."""
    ensemble = PathEnsembleViT(vit(), boundaries=(1, 2))
    teacher = Tap("partial_logits.final", of="student")
    matches = {
        "path1": Match(KLDivergenceLoss(), "partial_logits.1", teacher, weight=0.5),
        "hidden2": Match(HiddenStateMSELoss(), "partial_features.2", Tap("partial_features.final", of="student")),
    }
    distiller = Distiller(ensemble, None, matches, task_loss=nn.CrossEntropyLoss(), call=ImageCall())
    losses = distiller(IMAGES * 0 + 0.5 + 0.1 * IMAGES, torch.tensor([0, 1, 2, 3]))
    assert losses.keys() == {"loss/task", "loss/path1", "loss/hidden2"}
    losses["loss/hidden2"].backward()
    late = [*ensemble.vit.blocks[2].parameters()]
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in late), "the long path is detached"
    assert ensemble.vit.blocks[0].attn.qkv.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruned": ["atention2"]}, r"did you mean 'attention2'"),
        ({"pruned": ["layer9"]}, "no component of a transformer of 3 layers"),
        ({"pruned": ["input", "layer1", "layer2", "layer3"]}, "every component"),
        ({"pruned": ["input", "layer1"], "boundaries": (1,)}, "up to boundary 1"),
        ({"boundaries": (3,)}, "from 1 to 2"),
        ({"scale": "row"}, "'channel', 'scalar' or None"),
        ({"grouping": "path"}, "'component' or 'layer'"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PathEnsembleViT(vit(), **options)


def test_models_that_are_no_such_sum_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes a VisionTransformer of timm"):
        PathEnsembleViT(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="no classifier"):
        PathEnsembleViT(timm_model("vit_tiny_patch16_224", 0, **SMALL))
    post_norm = timm.models.vision_transformer.ResPostBlock
    with pytest.raises(ConfigError, match="layer 1 is a ResPostBlock"):
        PathEnsembleViT(timm_model("vit_tiny_patch16_224", 5, **SMALL, block_fn=post_norm))
    with pytest.raises(ConfigError, match="forward_head of its own"):
        PathEnsembleViT(timm_model("deit_tiny_distilled_patch16_224", 5))


def test_accuracies_without_paths_are_those_of_pruned_models() -> None:
    model = PathEnsembleViT(vit(), scale="channel").double()
    batches = [{"inputs": randn(20, 3, 8, 8, seed=seed).sigmoid(), "targets": torch.arange(20) % 5} for seed in (1, 2)]

    def accuracy(pruned: tuple[str, ...]) -> float:
        other = PathEnsembleViT(model.vit, scale="channel", pruned=pruned).double().eval()
        call = ImageCall()
        hits = [call.predict(other, batch, "inputs").argmax(1) == batch["targets"] for batch in batches]
        return 100.0 * torch.cat(hits).double().mean().item()

    for grouping, names in (("layer", model.layer_names), ("component", model.component_names)):
        found = path_accuracies(model, batches, grouping=grouping)
        assert found.whole == pytest.approx(accuracy(()))
        assert found.without == {name: pytest.approx(accuracy((name,))) for name in names}
        assert found.without_first == {first: pytest.approx(accuracy(names[:first])) for first in range(1, len(names))}
    assert len({*found.without.values()}) > 1, "a model on which pruning does nothing would show nothing"
    with pytest.raises(DataError, match="no batch"):
        path_accuracies(model, [])


def test_training_moves_the_scales() -> None:
    ensemble = PathEnsembleViT(vit(), scale="channel").double()
    ensemble(IMAGES).square().sum().backward()
    assert ensemble.scale is not None
    moved = ensemble.scale.weight.grad.abs().amax(1)
    assert bool((moved > 0).all())
    assert all(first <= second for first, second in pairwise(sorted(moved.tolist())))


def test_scale_alone() -> None:
    scale = EnsembleScale(("a", "b"), 3)
    assert torch.equal(scale(1, torch.full((1, 2, 3), 2.0)), torch.full((1, 2, 3), 2.0))
