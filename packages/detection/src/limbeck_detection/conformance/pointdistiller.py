"""Adapters from golden items to PointDistiller's pieces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from limbeck_core.conformance.harness import Adapter, GoldenCase
from limbeck_detection.pointdistiller import (
    BEVDistillationLoss,
    PointDistillationLoss,
    VoxelDistillationLoss,
    nearest_neighbors,
    squared_distances,
)

_FUSION = {"idendity": "concatenate", "sub": "difference"}  # spelt so there
_UNWEIGHTED = 5e-4  # of the norm that the reference takes without re-weighting
_POOLING = {"none": "none", "max": "max", "avg": "mean"}


def _knn(case: GoldenCase) -> Mapping[str, Tensor]:
    """The reference looks for neighbours of free places: they become further items that must not be found."""
    items, places, count = case.inputs["xyz"], case.inputs["new_xyz"], case.params["k"]
    distances = squared_distances(places, items)
    found = []
    for scene, queries in zip(items, places, strict=True):
        rows = []
        for query in queries:
            both = torch.cat((query.unsqueeze(0), scene))
            rows.append(nearest_neighbors(both, torch.tensor([0]), count + 1)[0, 1:] - 1)
        found.append(torch.stack(rows))
    # the file holds row numbers in rising order: the reference's are in none
    return {"value": torch.stack(found).sort(2).values, "out_square_distance": distances}


def _layers(case: GoldenCase) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Widths for the loss, and its parameters."""
    weights = {}
    for side, prefix in (("student", "stu"), ("teacher", "tea")):
        weights[f"{side}_graph.linear.weight"] = case.inputs[f"{prefix}_w"].flatten(1)
        weights[f"{side}_graph.norm.weight"] = case.inputs[f"{prefix}_bn_w"]
        weights[f"{side}_graph.norm.bias"] = case.inputs[f"{prefix}_bn_b"]
    widths: dict[str, Any] = {
        f"{side}_channels": weights[f"{side}_graph.linear.weight"].shape[1] // 2 for side in ("student", "teacher")
    }
    return {**widths, "channels": len(case.inputs["stu_w"])}, weights


def _common(case: GoldenCase) -> dict[str, Any]:
    return {"neighbors": case.params["kneighbours"], "fusion": _FUSION[case.params["fuse_mode"]]}


def _norm(each: Tensor, case: GoldenCase) -> Tensor:
    """Without re-weighting the reference takes the norm of all differences, not their mean square."""
    values = int(case.params["kneighbours"]) * len(case.inputs["stu_w"])
    return _UNWEIGHTED * (each * values).sum().sqrt()


def _voxel(case: GoldenCase) -> Mapping[str, Tensor]:
    """The reference's temperature is 0.01, and the factor of 2 is the weight of its match."""
    widths, weights = _layers(case)
    reweight = case.params["reweight"]
    loss = VoxelDistillationLoss(
        **widths,
        **_common(case),
        centers=case.params["num_voxels"],
        temperature=0.01,
        weighting="softmax" if reweight else "uniform",
        reduction="mean" if reweight else "none",
    ).double()
    student, teacher = case.inputs["student_feature"], case.inputs["teacher_feature"]
    points = case.inputs["num_voxel_points"]
    if reweight:
        return {"value": 2 * functional_call(loss, weights, (student, teacher, points))}
    return {"value": _norm(functional_call(loss, weights, (student, teacher, points)), case)}


def _bev(case: GoldenCase) -> Mapping[str, Tensor]:
    widths, weights = _layers(case)
    reweight = case.params["reweight"]
    loss = BEVDistillationLoss(
        **widths,
        **_common(case),
        centers=case.params["num_voxels"],
        weighting="scenes" if reweight else "uniform",
        reduction="mean" if reweight else "none",
    ).double()
    student, teacher = case.inputs["student_feature"], case.inputs["teacher_feature"]
    if reweight:
        return {"value": 2 * functional_call(loss, weights, (student, teacher))}
    return {"value": _norm(functional_call(loss, weights, (student, teacher)), case)}


def _point(case: GoldenCase) -> Mapping[str, Tensor]:
    """The reference computes weights and does not use them."""
    widths, weights = _layers(case)
    loss = PointDistillationLoss(
        **widths,
        **_common(case),
        centers=case.params["num_points"],
        weighting="uniform",
        pooling=_POOLING[case.params["pool_mode"]],  # type: ignore[arg-type]
    ).double()
    features = case.inputs["student_feature"], case.inputs["teacher_feature"]
    return {"value": 2 * functional_call(loss, weights, features)}


ADAPTERS: dict[str, Adapter] = {
    "pointdistiller_knn": _knn,
    "pointdistiller_voxel": _voxel,
    "pointdistiller_bev": _bev,
    "pointdistiller_point": _point,
}
