"""Hold the pose losses against golden vectors of DWPose's code; ``limbeck conform`` finds them by entry point."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import conv2d, kl_div, log_softmax

from limbeck_core.conformance.harness import Adapter, GoldenCase
from limbeck_core.functional import squared_distance_loss
from limbeck_pose.dwpose.losses import simcc_divergence_loss, simcc_task_loss
from limbeck_pose.simcc import SimCC


def _features(case: GoldenCase) -> Mapping[str, Tensor]:
    i = case.inputs
    student = conv2d(i["preds_S"], i["align_weight"], i["align_bias"]) if "align_weight" in i else i["preds_S"]
    return {"value": case.params["alpha_fea"] * squared_distance_loss(student, i["preds_T"])}


def _logits(case: GoldenCase) -> Mapping[str, Tensor]:
    i, sharpness = case.inputs, case.params["beta"]
    axes = [simcc_divergence_loss(i[f"student_{a}"], i[f"teacher_{a}"], sharpness=sharpness) for a in "xy"]
    return {"value": case.params["weight"] * torch.stack(axes).sum()}


def _task(case: GoldenCase) -> Mapping[str, Tensor]:
    i, p = case.inputs, case.params
    value: Tensor = i["pred_x"].new_zeros(())
    for axis in "xy":
        scores, labels, weight = i[f"pred_{axis}"], i[f"gt_{axis}"], i["target_weight"]
        if p["label_softmax"]:
            value = value + simcc_task_loss(scores, labels, weight, sharpness=p["beta"], reduction="sum")
        else:  # the reference can take labels as they are; its recipes never do
            terms = kl_div(log_softmax(scores * p["beta"], -1), labels, reduction="none").mean(-1) * weight
            value = value + terms.sum() / scores.shape[1]
    return {"value": value}


def _codec(case: GoldenCase) -> Mapping[str, Tensor]:
    i, p = case.inputs, case.params
    codec = SimCC(
        (p["input_size"][1], p["input_size"][0]),
        sigma=(p["sigma"][0], p["sigma"][1]),
        bins_per_pixel=p["simcc_split_ratio"],
        labels="gaussian" if p["smoothing_type"] == "gaussian" else "smoothed",
        smoothing=p["label_smooth_weight"],
    )
    targets = codec.encode(i["keypoints"], i["keypoints_visible"])
    decoded, scores = codec.decode(i["simcc_x"], i["simcc_y"])
    outputs = {
        "value": targets.x,
        "out_keypoint_y_labels": targets.y,
        "out_keypoint_weights": targets.weight,
        "out_decoded": decoded,
        "out_decoded_scores": scores,
    }
    if "out_roundtrip" in case.expected:
        outputs["out_roundtrip"], outputs["out_roundtrip_scores"] = codec.decode(targets.x, targets.y)
        refined, peaks = codec.decode(targets.x, targets.y, refine=True)
        # the reference divides zero by zero for a key point without a label
        outputs["out_roundtrip_dark"] = torch.where((peaks > 0).unsqueeze(-1), refined, torch.nan)
    return outputs


ADAPTERS: dict[str, Adapter] = {
    "dwpose_fea": _features,
    "dwpose_kldiscret": _task,
    "dwpose_logit": _logits,
    "dwpose_simcc": _codec,
}
