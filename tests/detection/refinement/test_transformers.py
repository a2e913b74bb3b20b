"""RT-DETR and Deformable DETR of transformers with edge distributions, built small from their configs."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    ResNetConfig,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
)

from limbeck_core import Distiller, MappingCall
from limbeck_core.errors import MatchError, MissingDependency
from limbeck_detection.refinement import EdgeRefinement, Refined, RefinementCriterion, refine_transformers

STAGES = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
ADDED = {"loss_fgl", "loss_ddf", "loss_first_bbox", "loss_first_giou"}


def rt_detr() -> nn.Module:
    config = RTDetrConfig(
        backbone_config=RTDetrResNetConfig(**STAGES), num_labels=3, encoder_in_channels=[16, 16, 16],
        encoder_hidden_dim=16, encoder_ffn_dim=16, encoder_attention_heads=2, hidden_expansion=0.5, d_model=16,
        decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16, decoder_attention_heads=2, decoder_layers=3,
        decoder_n_points=2, num_queries=10, num_denoising=12,
    )  # fmt: skip
    return RTDetrForObjectDetection(config)


def deformable(**options: Any) -> nn.Module:
    config = DeformableDetrConfig(
        backbone_config=ResNetConfig(**STAGES), num_labels=3, d_model=32, encoder_layers=1, decoder_layers=3,
        encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2, num_queries=10,
        two_stage_num_proposals=10, num_feature_levels=3, decoder_n_points=2, encoder_n_points=2, **options,
    )  # fmt: skip
    return DeformableDetrForObjectDetection(config)


KINDS = {
    "rt_detr": rt_detr,
    "deformable": deformable,
    "deformable_refine": lambda: deformable(with_box_refine=True),
    "deformable_two_stage": lambda: deformable(with_box_refine=True, two_stage=True),
}
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
LABELS = [
    {"class_labels": torch.tensor([0, 2]), "boxes": torch.tensor([[0.3, 0.3, 0.2, 0.3], [0.6, 0.6, 0.3, 0.2]])},
    {"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]])},
]


def build(kind: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return KINDS[kind]()


def stir(model: Any) -> None:
    """Make the distributions differ from layer to layer, as training does."""
    for parameter in model.refinement.corner_heads.parameters():
        nn.init.normal_(parameter, std=0.2)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Refined]:
    """What the refinement predicted in each call of a detector."""
    found: list[Refined] = []
    take = EdgeRefinement.take

    def listening(self: EdgeRefinement) -> Refined:
        found.append(take(self))
        return found[-1]

    monkeypatch.setattr(EdgeRefinement, "take", listening)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_detector_predicts_the_refined_boxes(kind: str, seen: list[Refined]) -> None:
    model = refine_transformers(build(kind)).eval()
    stir(model)
    with torch.no_grad():
        output = model(pixel_values=IMAGES)
    assert len(seen[0].boxes) == 3
    torch.testing.assert_close(output.pred_boxes, seen[0].boxes[-1].clamp(1e-5, 1 - 1e-5), rtol=0, atol=1e-6)
    assert not torch.equal(seen[0].boxes[0], seen[0].boxes[-1])


@pytest.mark.parametrize("kind", ["rt_detr", "deformable_refine"])
def test_a_trained_detector_keeps_the_boxes_of_its_first_layer(kind: str) -> None:
    model = build(kind).eval()
    for head in model.model.decoder.bbox_embed:
        nn.init.normal_(head.layers[-1].weight, std=0.5)
    with torch.no_grad():
        before = model(pixel_values=IMAGES).intermediate_reference_points[:, 0]
        after = refine_transformers(model)(pixel_values=IMAGES).pred_boxes
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_its_loss_has_the_terms_and_they_train_it(kind: str) -> None:
    model = refine_transformers(build(kind)).train()
    stir(model)
    torch.manual_seed(1)
    output = model(pixel_values=IMAGES, labels=LABELS)
    assert output.loss_dict.keys() >= ADDED
    sum(output.loss_dict[name] for name in ADDED).backward(retain_graph=True)
    assert all(p.grad.abs().sum() > 0 for p in model.refinement.first_box.layers[-1].parameters())
    assert all(head.layers[-1].weight.grad.abs().sum() > 0 for head in model.refinement.corner_heads)
    plain = refine_transformers(
        build(kind), RefinementCriterion(fgl_weight=0, ddf_weight=0, bbox_weight=0, giou_weight=0)
    ).train()
    plain.load_state_dict(model.state_dict())
    torch.manual_seed(1)
    own = plain(pixel_values=IMAGES, labels=LABELS)
    added = sum(output.loss_dict[name] for name in ADDED)
    torch.testing.assert_close(output.loss, own.loss + added, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_files_hold_it_whole(kind: str, tmp_path: Any) -> None:
    model = refine_transformers(build(kind)).eval()
    stir(model)
    names = [name for name, _ in model.named_parameters()]
    assert sum("refinement" in name for name in names) == 3 * 6 + 6
    model.tie_weights()
    twin = copy.deepcopy(model)
    other = refine_transformers(build(kind, seed=3)).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = model(pixel_values=IMAGES).pred_boxes
        torch.testing.assert_close(twin(pixel_values=IMAGES).pred_boxes, expected)
        torch.testing.assert_close(other(pixel_values=IMAGES).pred_boxes, expected)
        for parameter in model.refinement.parameters():
            parameter.add_(1.0)
        torch.testing.assert_close(twin(pixel_values=IMAGES).pred_boxes, expected, msg="a copy has its own heads")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()


def test_it_is_a_student_of_the_distiller_and_labels_may_be_empty() -> None:
    distiller = Distiller(refine_transformers(build("rt_detr")), None, call=MappingCall())
    empty = [{"class_labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}] * 2
    for labels in (LABELS, empty):
        losses = distiller({"inputs": {"pixel_values": IMAGES}, "labels": labels})
        total = losses["loss/task"]
        assert torch.isfinite(total)
        total.backward()


def test_what_it_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = refine_transformers(build("deformable"))
    with pytest.raises(MatchError, match="has edge distributions already"):
        refine_transformers(model)
    with pytest.raises(MatchError, match="call it with return_dict=True"):
        model(pixel_values=IMAGES, labels=LABELS, return_dict=False)
    with torch.device("meta"):
        detr = DetrForObjectDetection(
            DetrConfig(backbone_config=ResNetConfig(**STAGES), d_model=16, encoder_layers=1, decoder_layers=1)
        )
    with pytest.raises(MatchError, match=r"got DetrForObjectDetection.*branches\(\)"):
        refine_transformers(detr)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"limbeck-detection\[transformers\]"):
        refine_transformers(build("rt_detr"))
