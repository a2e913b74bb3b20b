"""The whole model: sizes, what it returns, how it starts, any input size, images without objects, golden gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck_core.conformance import read_case
from limbeck_core.conformance.harness import relative_error
from limbeck_core.errors import ShapeError
from limbeck_detection.conformance.model import _transformer
from limbeck_detection.dfine.model import DFINE, dfine, dfine_l, dfine_m, dfine_n, dfine_s, dfine_x
from limbeck_detection.dfine.transformer import DFINETransformer, make_anchors

CLASSES, QUERIES, LAYERS = 3, 7, 3

# Counted on the reference implementation: parameters in all, and tensors of the state dict.
SIZES = [
    (dfine_n, 3_782_693, 674, (1_850_396, 703_824, 1_228_473)),
    (dfine_s, 10_321_877, 794, (1_850_396, 4_021_504, 4_449_977)),
    (dfine_m, 19_590_064, 1053, (6_026_626, 7_799_040, 5_764_398)),
    (dfine_l, 31_244_152, 1173, (13_507_680, 9_343_232, 8_393_240)),
    (dfine_x, 62_621_560, 1441, (33_231_840, 20_700_032, 8_689_688)),
]


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def tiny(**options: Any) -> DFINE:
    settings: dict[str, Any] = dict(
        backbone="B0",
        out_stages=(2, 3),
        encoder_dim=16,
        encoder_feedforward=16,
        expansion=0.5,
        depth_mult=0.34,
        decoder_dim=16,
        decoder_feedforward=16,
        layers=LAYERS,
        heads=2,
        points=(2, 2),
        reg_max=8,
        num_queries=QUERIES,
        num_denoising=6,
        input_size=(64, 64),
    )
    return dfine(CLASSES, **{**settings, **options})


def stirred(model: DFINE) -> DFINE:
    """The model with heads that are no longer zero."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "head" in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def targets(*counts: int) -> list[dict[str, Tensor]]:
    return [{"labels": torch.arange(n) % CLASSES, "boxes": torch.rand(n, 4) * 0.2 + 0.4} for n in counts]


@pytest.mark.parametrize(("build", "total", "tensors", "parts"), SIZES)
def test_sizes_are_those_of_the_reference(
    build: Callable[..., DFINE], total: int, tensors: int, parts: tuple[int, int, int]
) -> None:
    with torch.device("meta"):
        model = build()
    assert count(model) == total
    assert len(model.state_dict()) == tensors
    assert tuple(count(part) for part in (model.backbone, model.encoder, model.decoder)) == parts


@pytest.mark.parametrize(("build", "frozen"), [(dfine_n, False), (dfine_s, False), (dfine_m, False), (dfine_l, True)])
def test_only_large_models_freeze_the_stem_and_the_norms(build: Callable[..., DFINE], frozen: bool) -> None:
    with torch.device("meta"):
        backbone = build().backbone
    assert any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()) != frozen
    assert all(parameter.requires_grad != frozen for parameter in backbone.get_submodule("stem").parameters())
    assert all(parameter.requires_grad for parameter in backbone.get_submodule("stages").parameters())


def test_what_the_criterion_gets() -> None:
    out = tiny().train()(torch.rand(2, 3, 64, 64), targets(2, 1))
    shapes = {"pred_logits": CLASSES, "pred_boxes": 4, "pred_corners": 36, "ref_points": 4}
    slots = 2 * 2 * 3  # positives and negatives of two targets in three groups
    for head in (out, *out["aux_outputs"]):
        assert {name: tuple(head[name].shape) for name in shapes} == {n: (2, QUERIES, w) for n, w in shapes.items()}
    for head in out["dn_outputs"]:
        assert {name: tuple(head[name].shape) for name in shapes} == {n: (2, slots, w) for n, w in shapes.items()}
    assert (len(out["aux_outputs"]), len(out["dn_outputs"]), len(out["enc_aux_outputs"])) == (2, 3, 1)
    assert out["aux_outputs"][0]["teacher_corners"] is out["pred_corners"]
    assert out["dn_outputs"][0]["teacher_logits"] is out["dn_outputs"][-1]["pred_logits"]
    assert out["pre_outputs"]["pred_boxes"].shape == out["enc_aux_outputs"][0]["pred_boxes"].shape == (2, QUERIES, 4)
    assert out["dn_pre_outputs"]["pred_logits"].shape == (2, slots, CLASSES)
    assert out["dn_meta"]["dn_num_split"] == [slots, QUERIES]
    assert out["enc_meta"] == {"class_agnostic": False}
    assert not out["ref_points"].requires_grad
    assert (out["up"].tolist(), out["reg_scale"].tolist()) == ([0.5], [4.0])


def test_in_evaluation_only_predictions() -> None:
    out = tiny().eval()(torch.rand(1, 3, 64, 64))
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        "pred_logits": (1, QUERIES, CLASSES),
        "pred_boxes": (1, QUERIES, 4),
    }


def test_at_first_no_layer_moves_a_box_and_quality_says_nothing() -> None:
    out = tiny().train()(torch.rand(2, 3, 64, 64), targets(1, 2))
    for head in (out, *out["aux_outputs"]):
        torch.testing.assert_close(head["pred_boxes"], out["pre_outputs"]["pred_boxes"], atol=1e-6, rtol=0)
    assert torch.equal(out["aux_outputs"][0]["pred_logits"], out["pre_outputs"]["pred_logits"])
    assert torch.equal(out["aux_outputs"][0]["pred_corners"], out["pred_corners"])


def test_layers_share_the_first_boxes_and_add_to_one_distribution() -> None:
    model = stirred(tiny()).train()
    out = model(torch.rand(1, 3, 64, 64), targets(1))
    assert all(torch.equal(head["ref_points"], out["pre_outputs"]["pred_boxes"]) for head in (out, *out["aux_outputs"]))
    first, last = out["aux_outputs"][0]["pred_corners"], out["pred_corners"]
    assert float((first - last).detach().abs().max()) > 0.1
    bias = model.decoder.get_parameter("dec_bbox_head.0.layers.2.bias")
    (grad,) = torch.autograd.grad(last.sum(), bias)
    torch.testing.assert_close(grad, torch.full((36,), float(QUERIES)))  # the first layer's part is added, once


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (70, 101), (63, 33)])
@pytest.mark.parametrize("stages", [(2, 3), (1, 2, 3)])
def test_any_input_size(size: tuple[int, int], stages: tuple[int, ...]) -> None:
    model = tiny(out_stages=stages, points=(2,) * len(stages))
    images = torch.rand(1, 3, *size)
    assert model.train()(images, targets(1))["pred_boxes"].shape == (1, QUERIES, 4)
    found = model.eval()(images)["pred_boxes"]
    assert bool(torch.isfinite(found).all())


def test_anchors_made_for_a_size_are_those_that_are_stored_for_it() -> None:
    torch.manual_seed(3)
    stored = stirred(tiny(input_size=(96, 64))).eval()
    made = stirred(tiny(input_size=(64, 64))).eval()
    made.load_state_dict(
        {k: v for k, v in stored.state_dict().items() if "anchors" not in k and "mask" not in k}, False
    )
    images = torch.rand(2, 3, 96, 64)
    for name, value in stored(images).items():
        assert torch.equal(made(images)[name], value)


def test_anchors() -> None:
    logits, valid = make_anchors([(2, 3), (1, 2)])
    boxes = logits.sigmoid()[0]
    assert boxes[4].tolist() == pytest.approx([0.5, 0.75, 0.05, 0.05])  # second row, second column
    assert boxes[7].tolist() == pytest.approx([0.75, 0.5, 0.1, 0.1])
    assert bool(valid.all())
    logits, valid = make_anchors([(1, 200)])
    assert int((~valid).sum()) == 4  # centres within 0.01 of the border: 0.0025 and 0.0075, and on the other side
    assert bool(torch.isinf(logits[~valid[..., 0]]).all())


def test_too_few_places_for_the_queries() -> None:
    with pytest.raises(ShapeError, match=r"7 queries .* maps of \[\(2, 2\), \(1, 1\)\] have only 5: use larger images"):
        tiny().eval()(torch.rand(1, 3, 32, 32))


def test_inputs_that_do_not_fit() -> None:
    model = tiny()
    with pytest.raises(ShapeError, match=r"images must have shape \(B, 3, H, W\), got \(1, 1, 64, 64\)"):
        model(torch.rand(1, 1, 64, 64))
    with pytest.raises(ShapeError, match=r"images must be a floating-point tensor, got torch.uint8"):
        model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(ShapeError, match="a batch of 1 images needs as many targets, got 2"):
        model(torch.rand(1, 3, 64, 64), targets(1, 1))
    with pytest.raises(ShapeError, match="the decoder was built for 2 maps, got 1"):
        model.decoder([torch.rand(1, 16, 4, 4)])
    with pytest.raises(ValueError, match="eval_idx must name one of 3 layers, got 3"):
        tiny(eval_idx=3)
    with pytest.raises(ValueError, match="one entry a map, got 2, 2 and 3"):
        tiny(points=(2, 2, 2))
    with pytest.raises(ValueError, match=r"query_select must be one of .* got 'best'"):
        tiny(query_select="best")


@pytest.mark.parametrize("given", [None, (0, 0), (2, 0)])
def test_every_parameter_has_a_gradient_whatever_the_targets(given: tuple[int, ...] | None) -> None:
    model = stirred(tiny()).train()
    out = model(torch.rand(2, 3, 64, 64), None if given is None else targets(*given))
    assert ("dn_outputs" in out) == (given == (2, 0))
    heads = [out, *out["aux_outputs"], out["pre_outputs"], *out["enc_aux_outputs"]]
    keys = ("pred_logits", "pred_boxes")
    sum((head[key] ** 2).sum() for head in heads for key in keys).backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_eval_idx_is_the_layer_that_training_calls_by_that_number() -> None:
    torch.manual_seed(5)
    early = stirred(tiny(eval_idx=0)).eval()
    found = early(images := torch.rand(1, 3, 64, 64))
    trained = early.train()
    for module in trained.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    expected = trained(images)["aux_outputs"][0]
    for name in ("pred_logits", "pred_boxes"):
        torch.testing.assert_close(found[name], expected[name])


def test_boxes_keep_single_precision_under_autocast_and_half_weights_run() -> None:
    model = stirred(tiny()).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(torch.rand(1, 3, 64, 64), targets(1))
    assert out["pred_logits"].dtype == torch.bfloat16
    for head in (out, *out["aux_outputs"], *out["dn_outputs"]):
        assert (head["pred_boxes"].dtype, head["ref_points"].dtype) == (torch.float32, torch.float32)
    for name, value in model.bfloat16().eval()(torch.rand(1, 3, 64, 64).bfloat16()).items():
        assert bool(torch.isfinite(value).all()), name


@pytest.mark.parametrize("select", ["one2many", "agnostic"])
def test_other_ways_to_choose_queries(select: str) -> None:
    model = stirred(tiny(query_select=select)).train()
    out = model(torch.rand(2, 3, 64, 64), targets(1, 1))
    assert out["enc_meta"] == {"class_agnostic": select == "agnostic"}
    assert out["enc_aux_outputs"][0]["pred_logits"].shape[-1] == (1 if select == "agnostic" else CLASSES)
    assert out["pred_logits"].shape == (2, QUERIES, CLASSES)


def test_a_copy_is_independent_and_still_shares_its_scale() -> None:
    model = copy.deepcopy(tiny()).double()
    decoder = model.decoder
    assert isinstance(decoder, DFINETransformer)
    assert decoder.decoder.reg_scale is decoder.reg_scale
    assert decoder.reg_scale.dtype == torch.float64


def test_gradients_of_weights_are_those_of_the_reference(golden: Path) -> None:
    for index in (1, 2):
        path = golden / f"dfine_decoder_train__c{index}.npz"
        case = read_case(path)
        model = _transformer(case)
        out = model(case.list_of("feat"))
        logits = (out["pred_logits"] * case.inputs["cotangent_logits"]).sum()
        ((out["pred_boxes"] * case.cotangent).sum() + logits).backward()
        with np.load(path) as arrays:
            expected = {k.removeprefix("gradparam/"): arrays[k] for k in arrays.files if k.startswith("gradparam/")}
        assert expected
        parameters = dict(model.named_parameters())
        for name, value in expected.items():
            grad = parameters[name].grad
            assert grad is not None
            assert relative_error(grad, torch.from_numpy(value)) < 1e-6


def test_single_precision_is_near_the_reference(golden: Path) -> None:
    case = read_case(golden / "dfine_n_full__c1.npz")
    size = tuple(case.params["input"])
    model = dfine_n(80, num_queries=case.params["num_queries"], num_denoising=0, input_size=size)
    model.load_state_dict({k.removeprefix("state/"): v for k, v in case.inputs.items() if k.startswith("state/")})
    out = model.eval()(case.inputs["image"].float())
    for name, value in out.items():
        torch.testing.assert_close(value, case.expected[f"out_{name}_float32"], atol=1e-5, rtol=1e-5)
