"""Adapters from golden items to :mod:`limbeck_core.functional.relations`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from limbeck_core import functional as F
from limbeck_core.conformance.harness import Adapter, GoldenCase

_QUERY_KEY_VALUE = {1: "query", 2: "key", 3: "value"}  # MiniLM's numbering of relations
_TEXTBREWER_THRESHOLD = -1e-3


def _rkd(case: GoldenCase) -> Mapping[str, Tensor]:
    student, teacher = case.inputs["fs0"], case.inputs["ft0"]
    weights = {"distance_weight": case.params["w_d"], "angle_weight": case.params["w_a"]}
    return {
        "value": F.relational_loss(student, teacher, **weights),
        "out_distance": F.distance_relation_loss(student, teacher),
        "out_angle": F.angle_relation_loss(student, teacher),
    }


def _rkd_mmrazor(case: GoldenCase) -> Mapping[str, Tensor]:
    """Rows are normalised first by default, unlike in the paper; the parts are reported with their weights."""
    student, teacher = case.inputs["fs0"].flatten(1), case.inputs["ft0"].flatten(1)
    if case.params["l2"]:
        student, teacher = F.unit_vectors(student), F.unit_vectors(teacher)
    distance = case.params["w_d"] * F.distance_relation_loss(student, teacher)
    angle = case.params["w_a"] * F.angle_relation_loss(student, teacher)
    return {"value": distance + angle, "out_distance": distance, "out_angle": angle}


def _sp(case: GoldenCase) -> Mapping[str, Tensor]:
    pairs = zip(case.list_of("fs"), case.list_of("ft"), strict=True)
    losses = torch.stack([F.similarity_preserving_loss(student, teacher) for student, teacher in pairs])
    return {"value": losses.sum(), "out_losses": losses}


def _pkt(case: GoldenCase) -> Mapping[str, Tensor]:
    return {"value": F.probabilistic_transfer_loss(case.inputs["fs0"], case.inputs["ft0"])}


def _cc(case: GoldenCase) -> Mapping[str, Tensor]:
    """The reference compares no kernels: it multiplies the differences of samples that happen to be neighbours."""
    difference = (case.inputs["fs0"] - case.inputs["ft0"]).abs()
    return {"value": (difference[:-1] * difference[1:]).sum(1).mean()}


def _minilm(case: GoldenCase) -> Mapping[str, Tensor]:
    outputs: dict[str, Tensor] = {}
    value = torch.zeros((), dtype=torch.float64)
    for (first, second), weight in case.params["relations"]:
        states, keys = _QUERY_KEY_VALUE[first], _QUERY_KEY_VALUE[second]
        loss = F.self_attention_relation_loss(
            case.inputs[f"student_{states}"],
            case.inputs[f"teacher_{states}"],
            None if states == keys else case.inputs[f"student_{keys}"],
            None if states == keys else case.inputs[f"teacher_{keys}"],
            relation_heads=case.params["num_relation_heads"],
            mask=case.inputs["attention_mask"],
        )
        outputs[f"out_rel_{first}{second}"] = loss
        value = value + weight * loss
    return {"value": value, **outputs}


def _textbrewer_att_mse(case: GoldenCase) -> Mapping[str, Tensor]:
    """Without a mask the reference takes any clearly negative score for one of padding and puts zero there."""
    student, teacher, mask = case.inputs["attention_S"], case.inputs["attention_T"], case.inputs.get("mask")
    if mask is None:
        student, teacher = (scores.masked_fill(scores <= _TEXTBREWER_THRESHOLD, 0.0) for scores in (student, teacher))
    return {"value": F.attention_mse_loss(student, teacher, mask=mask)}


def _textbrewer_att_ce(case: GoldenCase) -> Mapping[str, Tensor]:
    """The reference's softmax runs over padding too, whose terms are dropped only then.

    Its sum over the kept keys is our cross-entropy within them, plus that of keeping, times the teacher's mass there.
    """
    student, teacher, mask = case.inputs["attention_S"], case.inputs["attention_T"], case.inputs.get("mask")
    if mask is None:
        # any clearly negative score of the teacher is taken for one of padding
        kept = teacher.softmax(-1).masked_fill(teacher <= _TEXTBREWER_THRESHOLD, 0.0)
        return {"value": -(kept * log_softmax(student, dim=-1)).sum(-1).mean()}
    valid = mask != 0
    lost = ~valid[:, None, None, :]
    within = F.attention_cross_entropy_loss(student, teacher, mask=mask, reduction="none")

    def log_mass(scores: Tensor) -> Tensor:
        return scores.masked_fill(lost, -torch.inf).logsumexp(-1) - scores.logsumexp(-1)

    rows = log_mass(teacher).exp() * (within - log_mass(student))
    queries = valid[:, None, :].expand(rows.shape)
    return {"value": F.reduce_loss(rows, "mean", mask=queries)}


ADAPTERS: dict[str, Adapter] = {
    "cc": _cc,
    "minilm_v1": _minilm,
    "minilm_v2": _minilm,
    "pkt": _pkt,
    "rkd": _rkd,
    "rkd_mmrazor": _rkd_mmrazor,
    "sp": _sp,
    "textbrewer_att_ce": _textbrewer_att_ce,
    "textbrewer_att_mse": _textbrewer_att_mse,
}
