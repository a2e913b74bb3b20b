"""Adapters from golden items of vision methods to :mod:`limbeck_vision.methods`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from limbeck_core.conformance.harness import Adapter, GoldenCase
from limbeck_core.functional import kl_divergence_loss
from limbeck_vision.methods import mdcs, sla


def _sla(case: GoldenCase) -> Mapping[str, Tensor]:
    joint, views = case.inputs["joint_preds"], case.params["n"]
    over_views: sla.losses.OverViews = "sum" if case.params["with_large_loss"] else "mean"
    loss = sla.label_augmentation_loss(joint, case.inputs["labels"].long(), views=views, over_views=over_views)
    return {"value": loss, "out_agg_preds": sla.aggregated_logits(joint, views=views)}


def _sla_sd(case: GoldenCase) -> Mapping[str, Tensor]:
    """The vectors hold a row of the single head for every view, of which the reference reads the first."""
    single = case.inputs["single_preds"][:: case.params["n"]]
    outputs = dict(_sla(case))
    distilled = kl_divergence_loss(single, outputs["out_agg_preds"], temperature=case.params["T"])
    outputs["value"] = outputs["value"] + cross_entropy(single, case.inputs["labels"].long()) + distilled
    return outputs


def _mdcs(case: GoldenCase) -> Mapping[str, Tensor]:
    """The reference counts epochs from 1, lays experts first, and adds 1e-9 to the prior before its logarithm."""
    logits, counts = case.inputs["logits"].transpose(0, 1), case.inputs["cls_num_list"]
    samples = len(logits) // 2
    target = case.inputs["target"].long()[:samples]
    exponents = torch.tensor(mdcs.losses.EXPONENTS, dtype=torch.float64)
    offsets = (counts.double() ** exponents.unsqueeze(1) + 1e-9).log()
    diversity = mdcs.diverse_experts_loss(logits, target, offsets=offsets)
    weak, strong = (mdcs.PickView(index)(logits) for index in (0, 1))
    consistency = mdcs.confident_consistency_loss(strong, weak, target, offsets=offsets)
    warm_up = float(case.params["additional"].rpartition("=")[2])
    weight = 0.6 * min(case.params["epoch"] / warm_up, 1.0)
    return {
        "value": diversity + weight * consistency,
        "out_diversity_ce": diversity,
        "out_consistency_kl": consistency,
        "out_consistency_weighted": weight * consistency,
        "out_num_confident": mdcs.confident_instances(weak, target, offsets=offsets).sum(0),
    }


ADAPTERS: dict[str, Adapter] = {"mdcs": _mdcs, "sla": _sla, "sla_sd": _sla_sd}
