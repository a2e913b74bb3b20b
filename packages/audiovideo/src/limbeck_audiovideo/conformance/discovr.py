"""Adapters from golden items to DISCOVR's losses, with what its released code does otherwise."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from limbeck_audiovideo.discovr import cluster_distillation_loss
from limbeck_core import functional as F
from limbeck_core.conformance import Adapter, GoldenCase
from limbeck_core.functional.relations import unit_vectors


def _discovr_scd(case: GoldenCase) -> Mapping[str, Tensor]:
    """Both directions with a gradient to either side, as the formula has it; the prototypes from the video side."""
    x, p = case.inputs, case.params
    prototypes = unit_vectors(x["prototypes"].detach()).requires_grad_()
    numbers = {"epsilon": p["eps"], "iterations": p["iters"]}
    outputs: dict[str, Tensor] = {}
    for number, side in enumerate(("image_feats", "video_feats"), 1):
        scores = unit_vectors(x[side]) @ prototypes.detach().T
        outputs[f"out_scores{number}"] = scores
        outputs[f"out_q{number}"] = F.sinkhorn_assignment(scores.flatten(0, 1), **numbers).reshape(scores.shape)
    outputs["out_loss1"] = cluster_distillation_loss(x["image_feats"], x["video_feats"], prototypes.detach(), **numbers)
    outputs["out_loss2"] = cluster_distillation_loss(x["video_feats"], x["image_feats"], prototypes, **numbers)
    (slope,) = torch.autograd.grad(outputs["out_loss2"], prototypes, retain_graph=True)
    outputs["out_grad_prototypes_normalised"] = p["swav_weight"] * slope
    outputs["grad_prototypes"] = torch.zeros_like(prototypes)  # the reference normalises them outside of its graph
    outputs["value"] = p["swav_weight"] * (outputs["out_loss1"] + outputs["out_loss2"])
    return outputs


def _discovr_image_dino(case: GoldenCase) -> Mapping[str, Tensor]:
    """Temperatures are clipped, the loss is scaled by the batch, and the centre follows probabilities, not scores."""
    x, p = case.inputs, case.params
    temperature = max(0.04, p["teacher_temp"])
    center = x["center"][0].detach()
    losses, centers = [], []
    for call in range(p["calls"]):
        teacher = x[f"teacher{call}"]
        loss = F.dino_loss(
            torch.cat([x[f"student{call}_view{view}"] for view in range(p["views"])]),
            teacher,
            center=center,
            student_temperature=min(max(p["student_temp"], 0.1), 0.2),
            teacher_temperature=temperature,
            teacher_views=1,
            skip_same_view=False,
        )
        losses.append(loss * 256 / len(teacher))
        said = ((teacher.detach() - center) / temperature).softmax(1)
        center = F.moving_center(center, said, momentum=p["center_momentum"])
        centers.append(center)
    return {
        "value": torch.stack(losses).sum(),
        "out_losses": torch.stack(losses),
        "out_centers": torch.stack(centers),
    }


ADAPTERS: dict[str, Adapter] = {"discovr_image_dino": _discovr_image_dino, "discovr_scd": _discovr_scd}
