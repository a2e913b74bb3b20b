"""Adapters from golden items to :mod:`limbeck_core.functional.logits`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, log_softmax, softmax

from limbeck_core import functional as F
from limbeck_core.conformance.harness import Adapter, GoldenCase


def _pair(case: GoldenCase) -> tuple[Tensor, Tensor]:
    return case.inputs["logits_student"], case.inputs["logits_teacher"]


def _kd(case: GoldenCase) -> Mapping[str, Tensor]:
    loss = F.kl_divergence_loss(*_pair(case), temperature=case.params["T"])
    return {"value": loss, "out_mdistiller": loss}


def _kd_soft_ce(case: GoldenCase) -> Mapping[str, Tensor]:
    """The reference weighs the loss by alpha and returns 1 - alpha for the hard loss."""
    student, teacher = _pair(case)
    temperature, alpha = case.params["T"], case.params["alpha"]
    loss = F.soft_target_cross_entropy_loss(student, softmax(teacher / temperature, dim=1), temperature=temperature)
    return {"value": alpha * loss, "out_ori_alpha": torch.tensor(1 - alpha)}


def _kl_mmrazor(case: GoldenCase) -> Mapping[str, Tensor]:
    """The reference's "mean" divides by classes as well as by samples."""
    student, teacher = _pair(case)
    loss = F.kl_divergence_loss(student, teacher, temperature=case.params["tau"])
    return {"value": loss / student.shape[1] if case.params["reduction"] == "mean" else loss}


def _dkd(case: GoldenCase) -> Mapping[str, Tensor]:
    alpha, beta, temperature = case.params["alpha"], case.params["beta"], case.params["T"]

    def loss(target_weight: float, non_target_weight: float) -> Tensor:
        return F.decoupled_kd_loss(
            *_pair(case),
            case.inputs["target"],
            temperature=temperature,
            target_weight=target_weight,
            non_target_weight=non_target_weight,
        )

    return {"value": loss(alpha, beta), "out_tckd": loss(1.0, 0.0), "out_nckd": loss(0.0, 1.0)}


def _nkd(case: GoldenCase) -> Mapping[str, Tensor]:
    loss = F.normalized_kd_loss(
        *_pair(case),
        case.inputs["target"],
        temperature=case.params["temp"],
        non_target_weight=case.params["gamma"],
    )
    return {"value": loss}


def _uskd(case: GoldenCase) -> Mapping[str, Tensor]:
    """USKD with the released code's rank, into which the student enters by its log-probabilities."""
    student, target = case.inputs["logits_student"], case.inputs["target"]
    weak = linear(case.inputs["fea_mid"], case.inputs["fc_weight"], case.inputs["fc_bias"])
    classes = target.topk(2, dim=1).indices if target.is_floating_point() else target.unsqueeze(1)

    def over_rest(values: Tensor) -> Tensor:
        return values / (1 - values.gather(1, classes).sum(1, keepdim=True) + 1e-6)

    rank = over_rest(softmax(weak, dim=1)) + over_rest(log_softmax(student, dim=1))
    soft_labels = F.zipf_soft_labels(rank, target)
    log_others = log_softmax(student.scatter(1, classes, -torch.inf), dim=1).masked_fill(soft_labels == 0, 0.0)
    non_target = -(soft_labels * log_others).sum(1).mean()

    def part(target_weight: float, weak_weight: float) -> Tensor:
        return F.customized_soft_label_loss(
            student, weak, target, target_weight=target_weight, non_target_weight=0.0, weak_weight=weak_weight
        )

    target_part, weak_part = part(1.0, 0.0), part(0.0, case.params["mu"])
    return {
        "value": case.params["alpha"] * target_part + case.params["beta"] * non_target + weak_part,
        "out_loss_t": target_part,
        "out_loss_non": non_target,
        "out_loss_weak": weak_part,
    }


def _ps_kd(case: GoldenCase) -> Mapping[str, Tensor]:
    weight = F.progressive_weight(case.params["epoch"], case.params["end_epoch"], final_weight=case.params["alpha_T"])
    soft = F.progressive_target(case.inputs["target"], case.inputs["past_probs"], past_weight=weight)
    loss = F.soft_target_cross_entropy_loss(case.inputs["logits_student"], soft)
    return {"value": loss, "out_alpha_t": torch.tensor(weight, dtype=torch.float64), "out_soft_targets": soft}


def _dist(case: GoldenCase) -> Mapping[str, Tensor]:
    return {"value": F.dist_loss(*_pair(case), inter_weight=case.params["beta"], intra_weight=case.params["gamma"])}


def _dist_tau(case: GoldenCase) -> Mapping[str, Tensor]:
    loss = F.dist_loss(
        *_pair(case),
        temperature=case.params["tau"],
        inter_weight=case.params["inter"],
        intra_weight=case.params["intra"],
    )
    return {"value": loss}


def _dml(case: GoldenCase) -> Mapping[str, Tensor]:
    """Peers, each taught by the label and by the mean over the others."""
    peers = case.list_of("logits")
    losses = []
    for i, student in enumerate(peers):
        others = [F.kl_divergence_loss(student, peer) for j, peer in enumerate(peers) if j != i]
        losses.append(cross_entropy(student, case.inputs["target"]) + torch.stack(others).mean())
    own = {
        f"out_gradloss{i}_logits{i}": torch.autograd.grad(loss, peer, retain_graph=True)[0]
        for i, (loss, peer) in enumerate(zip(losses, peers, strict=True))
    }
    return {"value": torch.stack(losses).sum(), "out_per_model": torch.stack(losses), **own}


def _wsld(case: GoldenCase) -> Mapping[str, Tensor]:
    loss = F.weighted_soft_label_loss(*_pair(case), case.inputs["target"], temperature=case.params["T"])
    return {"value": case.params["alpha"] * loss}


ADAPTERS: dict[str, Adapter] = {
    "dist": _dist,
    "dist_seg": _dist,
    "dist_tau": _dist_tau,
    "dkd": _dkd,
    "dml": _dml,
    "kd": _kd,
    "kd_soft_ce": _kd_soft_ce,
    "kl_mmrazor": _kl_mmrazor,
    "nkd": _nkd,
    "nkd_softlabel": _nkd,
    "ps_kd": _ps_kd,
    "uskd": _uskd,
    "wsld": _wsld,
}
