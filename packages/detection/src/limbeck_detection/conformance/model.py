"""Adapters from golden items to D-FINE's model and the functions it is made of."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from limbeck_core.conformance.harness import Adapter, GoldenCase
from limbeck_detection.boxes import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh, pairwise_giou, pairwise_iou
from limbeck_detection.dfine.attention import deformable_attention
from limbeck_detection.dfine.decoder import LQE, Gate
from limbeck_detection.dfine.denoising import DenoisingNoise, denoising_queries
from limbeck_detection.dfine.encoder import HybridEncoder
from limbeck_detection.dfine.model import DFINE, dfine_n
from limbeck_detection.dfine.postprocess import PostProcess
from limbeck_detection.dfine.regression import (
    BinTarget,
    bbox2distance,
    distance2bbox,
    integral,
    translate_gt,
    weighting_function,
)
from limbeck_detection.dfine.transformer import DFINETransformer

_LAYER_KEYS = ("pred_logits", "pred_boxes", "pred_corners", "ref_points")


def _scalar(case: GoldenCase, name: str) -> Tensor:
    return torch.tensor([case.params[name]], dtype=torch.float64)


def _shifts(case: GoldenCase) -> Tensor:
    return weighting_function(case.params["reg_max"], _scalar(case, "up"), _scalar(case, "reg_scale"))


def _state(case: GoldenCase) -> dict[str, Tensor]:
    return {name.removeprefix("state/"): value for name, value in case.inputs.items() if name.startswith("state/")}


def _load(model: nn.Module, case: GoldenCase) -> None:
    model.double().load_state_dict(_state(case))


def _box_ops(case: GoldenCase) -> Mapping[str, Tensor]:
    first, second = (box_cxcywh_to_xyxy(case.inputs[name]) for name in ("boxes1", "boxes2"))
    iou, union = pairwise_iou(first, second)
    return {
        "value": pairwise_giou(first, second),
        "out_iou": iou,
        "out_union": union,
        "out_xyxy1": first,
        "out_roundtrip1": box_xyxy_to_cxcywh(first),
    }


def _weighting_function(case: GoldenCase) -> Mapping[str, Tensor]:
    return {"value": _shifts(case), "out_deploy": _shifts(case)}


def _bin_outputs(target: BinTarget) -> Mapping[str, Tensor]:
    return {"value": target.bins, "out_weight_right": target.weight_right, "out_weight_left": target.weight_left}


def _translate_gt(case: GoldenCase) -> Mapping[str, Tensor]:
    up, reg_scale = _scalar(case, "up"), _scalar(case, "reg_scale")
    return _bin_outputs(translate_gt(case.inputs["gt"], case.params["reg_max"], reg_scale, up))


def _bbox2distance(case: GoldenCase) -> Mapping[str, Tensor]:
    points, boxes = case.inputs["points"], case.inputs["bbox"]
    up, reg_scale = _scalar(case, "up"), _scalar(case, "reg_scale")
    return _bin_outputs(bbox2distance(points, boxes, case.params["reg_max"], reg_scale, up))


def _distance2bbox(case: GoldenCase) -> Mapping[str, Tensor]:
    return {"value": distance2bbox(case.inputs["points"], case.inputs["distance"], _scalar(case, "reg_scale"))}


def _integral(case: GoldenCase) -> Mapping[str, Tensor]:
    return {"value": integral(case.inputs["pred_corners"], _shifts(case))}


def _deformable_attention(case: GoldenCase) -> Mapping[str, Tensor]:
    out = deformable_attention(
        case.list_of("value"),
        [(height, width) for height, width in case.params["shapes"]],
        case.inputs["sampling_locations"],
        case.inputs["attention_weights"],
        case.params["num_points"],
        sampling=case.params["method"],
    )
    return {"value": out}


def _gate(case: GoldenCase) -> Mapping[str, Tensor]:
    names = {"gate.weight": "w", "gate.bias": "b", "norm.weight": "ln_w", "norm.bias": "ln_b"}
    weights = {name: case.inputs[key] for name, key in names.items()}
    gate = Gate(case.inputs["x1"].shape[-1]).double()
    return {"value": functional_call(gate, weights, (case.inputs["x1"], case.inputs["x2"]))}


def _lqe(case: GoldenCase) -> Mapping[str, Tensor]:
    estimator = LQE(top=case.params["k"], hidden=case.params["hidden"], reg_max=case.params["reg_max"]).double()
    kinds = {"weight": "w", "bias": "b"}
    weights = {f"reg_conf.layers.{i}.{name}": case.inputs[f"{key}{i}"] for i in range(2) for name, key in kinds.items()}
    inputs = (case.inputs["scores"], case.inputs["pred_corners"])
    return {"value": functional_call(estimator, weights, inputs)}


def _denoising(case: GoldenCase) -> Mapping[str, Tensor]:
    inputs, params = case.inputs, case.params
    images = range(len(params["num_gt"]))
    sign = 2 * inputs["rand_sign01"] - 1
    found = denoising_queries(
        [{"labels": inputs[f"tgt{i}_labels"], "boxes": inputs[f"tgt{i}_boxes"]} for i in images],
        num_classes=params["num_classes"],
        num_queries=params["num_queries"],
        num_denoising=params["num_denoising"],
        label_noise_ratio=params["label_noise_ratio"],
        box_noise_scale=params["box_noise_scale"],
        noise=DenoisingNoise(inputs["rand_label"], inputs["new_label"], sign, inputs["rand_part"]),
    )
    if found is None:
        return {}
    positives = {f"out_dn_positive_idx{i}": places for i, places in enumerate(found.meta["dn_positive_idx"])}
    return {
        "value": found.box_logits,
        "out_query_class": found.labels,
        "out_attn_mask": found.blocked,
        "out_dn_num_group": torch.tensor(found.meta["dn_num_group"]),
        "out_dn_num_split": torch.tensor(found.meta["dn_num_split"]),
        **positives,
    }


def _feature_gradients(case: GoldenCase, total: Tensor) -> dict[str, Tensor]:
    features = case.list_of("feat")
    return {f"grad_feat{i}": grad for i, grad in enumerate(torch.autograd.grad(total, features))}


def _hybrid_encoder(case: GoldenCase) -> Mapping[str, Tensor]:
    params = case.params
    encoder = HybridEncoder(
        params["in_channels"],
        hidden_dim=params["hidden_dim"],
        heads=params["nhead"],
        feedforward=params["dim_feedforward"],
        attention_levels=params["use_encoder_idx"],
        attention_layers=params["num_encoder_layers"],
        expansion=params["expansion"],
        depth_mult=params["depth_mult"],
    )
    _load(encoder, case)
    maps = encoder.train(params["train"])(case.list_of("feat"))
    total = sum((level * case.inputs[f"cotangent{i}"]).sum() for i, level in enumerate(maps))
    outputs = {f"out_{i}": level for i, level in enumerate(maps)}
    return {"value": maps[0], **outputs, **_feature_gradients(case, total)}


def _transformer(case: GoldenCase) -> DFINETransformer:
    params = case.params
    model = DFINETransformer(
        params["num_classes"],
        hidden_dim=params["hidden_dim"],
        in_channels=params["feat_channels"],
        strides=params["feat_strides"],
        num_queries=params["num_queries"],
        points=params["num_points"],
        heads=params["nhead"],
        layers=params["num_layers"],
        feedforward=params["dim_feedforward"],
        num_denoising=params["num_denoising"],
        learn_query_content=params["learn_query_content"],
        eval_idx=params["eval_idx"],
        sampling=params["cross_attn_method"],
        query_select=params["query_select_method"],
        reg_max=params["reg_max"],
        reg_scale=params["reg_scale"],
        input_size=tuple(params["eval_spatial_size"]),
    )
    _load(model, case)
    return model.train(params["train"])


def _decoder(case: GoldenCase) -> Mapping[str, Tensor]:
    found = _transformer(case)(case.list_of("feat"))
    weights = {"pred_boxes": case.cotangent, "pred_logits": case.inputs["cotangent_logits"]}
    total = sum((found[name] * weight).sum() for name, weight in weights.items())
    outputs = {"value": found["pred_boxes"]}
    outputs |= {f"out_{name}": found[name] for name in _LAYER_KEYS if name in found}
    lists = {"aux": found.get("aux_outputs", ()), "enc": found.get("enc_aux_outputs", ())}
    heads = {f"{kind}{i}": head for kind, several in lists.items() for i, head in enumerate(several)}
    if "pre_outputs" in found:
        heads["pre"] = found["pre_outputs"]
    for kind, head in heads.items():
        outputs |= {f"out_{kind}_{name}": head[name] for name in _LAYER_KEYS if name in head}
    return {**outputs, **_feature_gradients(case, total)}


def _n_full(case: GoldenCase) -> Mapping[str, Tensor]:
    """The whole model in float64, held against the reference in float64 and, rounded, against its run in float32.

    The reference's float32 run is up to 9e-7 from its own float64 run, and two float32 runs on different kernels differ
    by as much again, so a float32 run here could not be held to 1e-6; a test holds it to single precision.
    """
    params, images = case.params, case.inputs["image"]
    model: DFINE = dfine_n(
        params["num_classes"], num_queries=params["num_queries"], num_denoising=0, input_size=tuple(params["input"])
    )
    _load(model, case)
    model.eval()
    with torch.no_grad():
        maps = model.backbone(images)
        fused = model.encoder(maps)
        found = model.decoder(fused)
    outputs = {f"out_backbone{i}": level for i, level in enumerate(maps)}
    outputs |= {f"out_encoder{i}": level for i, level in enumerate(fused)}
    outputs |= {f"out_{name}_float32": value.float() for name, value in found.items()}
    return {"value": found["pred_boxes"], "out_pred_logits": found["pred_logits"], **outputs}


def _postprocess(case: GoldenCase) -> Mapping[str, Tensor]:
    outputs = {name: case.inputs[name] for name in ("pred_logits", "pred_boxes")}
    labels, boxes, scores = PostProcess(case.params["num_top_queries"])(outputs, case.inputs["orig_target_sizes"])
    return {"value": boxes, "out_labels": labels, "out_scores": scores}


ADAPTERS: dict[str, Adapter] = {
    "dfine_bbox2distance": _bbox2distance,
    "dfine_box_ops": _box_ops,
    "dfine_decoder_eval": _decoder,
    "dfine_decoder_train": _decoder,
    "dfine_deformable_attn": _deformable_attention,
    "dfine_denoising": _denoising,
    "dfine_distance2bbox": _distance2bbox,
    "dfine_gate": _gate,
    "dfine_hybrid_encoder": _hybrid_encoder,
    "dfine_integral": _integral,
    "dfine_lqe": _lqe,
    "dfine_n_full": _n_full,
    "dfine_postprocess": _postprocess,
    "dfine_translate_gt": _translate_gt,
    "dfine_weighting_function": _weighting_function,
}
