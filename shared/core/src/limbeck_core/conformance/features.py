"""Adapters from golden items to :mod:`limbeck_core.functional.features` and :mod:`limbeck_core.adapters`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from limbeck_core import functional as F
from limbeck_core import losses
from limbeck_core.adapters import AttentionFusion, ConvAdapter
from limbeck_core.conformance.harness import Adapter, GoldenCase


def _per_layer(loss: Callable[[GoldenCase, Tensor, Tensor], Tensor]) -> Adapter:
    """Sum a loss of one pair of tensors over the layers fs0/ft0, fs1/ft1, ... of a case."""

    def adapter(case: GoldenCase) -> Mapping[str, Tensor]:
        pairs = zip(case.list_of("fs"), case.list_of("ft"), strict=True)
        terms = torch.stack([loss(case, student, teacher) for student, teacher in pairs])
        return {"value": terms.sum(), "out_losses": terms}

    return adapter


def _fsp(case: GoldenCase) -> Mapping[str, Tensor]:
    students, teachers = case.list_of("fs"), case.list_of("ft")
    terms = [F.fsp_loss(students[i : i + 2], teachers[i : i + 2]) for i in range(len(students) - 1)]
    return {"value": F.fsp_loss(students, teachers), "out_losses": torch.stack(terms)}


def _ab(case: GoldenCase) -> Mapping[str, Tensor]:
    students, teachers = case.list_of("fs"), case.list_of("ft")
    terms = []
    for index, (student, teacher) in enumerate(zip(students, teachers, strict=True)):
        term = F.activation_boundary_loss(student, teacher, margin=case.params["margin"])
        # stage weights and the constant 3/1000 are hard-coded in the reference
        terms.append(term * 2.0 ** (index - len(students) + 1) * 3 / 1000)
    return {"value": torch.stack(terms).sum(), "out_losses": torch.stack(terms)}


def _vid(case: GoldenCase) -> Mapping[str, Tensor]:
    inputs = case.inputs
    module = losses.VariationalInformationLoss(
        inputs["fs0"].shape[1],
        inputs["ft0"].shape[1],
        hidden_channels=inputs["w0"].shape[0],
        initial_variance=case.params["init_pred_var"],
        floor=case.params["eps"],
    )
    weights = {f"regressor.{2 * i}.weight": inputs[f"w{i}"] for i in range(3)}
    weights["raw_variance"] = inputs["log_scale"]
    return {"value": functional_call(module, weights, (inputs["fs0"], inputs["ft0"]))}


def _srrl(case: GoldenCase) -> Mapping[str, Tensor]:
    # the reference takes the scores as they are, so its two terms are two losses here
    features = F.pooled_feature_loss(case.inputs["fea_s"], case.inputs["fea_t"])
    logits = F.hint_loss(case.inputs["logit_st"], case.inputs["logit_t"])
    return {"value": case.params["alpha"] * features + case.params["beta"] * logits}


def _mgd(case: GoldenCase) -> Mapping[str, Tensor]:
    inputs, student = case.inputs, case.inputs["fs"]
    channels, ratio = inputs["ft"].shape[1], case.params["lambda_mgd"]
    if "align_weight" in inputs:
        weights = {"conv.weight": inputs["align_weight"], "conv.bias": inputs["align_bias"]}
        student = functional_call(ConvAdapter(student.shape[1], channels), weights, (student,))
    module = losses.MaskedGenerativeLoss(channels, mask_ratio=ratio, masking="channel")
    weights = {
        f"generation.{layer}.{kind}": inputs[f"gen{layer}_{kind}"] for layer in (0, 2) for kind in ("weight", "bias")
    }
    loss = functional_call(module, weights, (student, inputs["ft"]), {"noise": inputs["noise"]})
    return {"value": case.params["alpha_mgd"] * loss, "out_mask": (inputs["noise"] >= ratio).double()}


def _hcl(case: GoldenCase) -> Mapping[str, Tensor]:
    return {"value": F.hierarchical_context_loss(case.list_of("fs"), case.list_of("ft"))}


def _abf(case: GoldenCase) -> Mapping[str, Tensor]:
    inputs, size = case.inputs, case.params["out_shape"]
    middle, channels = inputs["conv1_weight"].shape[:2]
    fuse = case.params["fuse"]
    module = AttentionFusion(channels, inputs["conv2_weight"].shape[0], middle, fuse=fuse)
    weights = {
        "reduce.0.weight": inputs["conv1_weight"],
        "reduce.1.weight": inputs["bn1_weight"],
        "reduce.1.bias": inputs["bn1_bias"],
        "expand.0.weight": inputs["conv2_weight"],
        "expand.1.weight": inputs["bn2_weight"],
        "expand.1.bias": inputs["bn2_bias"],
    }
    # float64 statistics: the running ones of the fresh module are float32
    weights.update({name: buffer.clone() for name, buffer in module.double().named_buffers()})
    if fuse:
        weights.update({"gate.weight": inputs["att_weight"], "gate.bias": inputs["att_bias"]})
    output, fused = functional_call(module, weights, (inputs["x"], inputs.get("y"), (size, size)))
    return {"value": output, "out_residual": fused}


def _ofd_feat(case: GoldenCase) -> Mapping[str, Tensor]:
    inputs = case.inputs
    return {"value": F.partial_l2_loss(inputs["fs0"], inputs["ft0"], inputs["margin"].flatten())}


def _ofd_margin(case: GoldenCase) -> Mapping[str, Tensor]:
    return {"value": F.ofd_margin(case.inputs["bn_weight"], case.inputs["bn_bias"])}


def _tokens(loss: Callable[..., Tensor], *, masked: bool = True) -> Adapter:
    """Compare hidden states, which TextBrewer's functions call attention."""

    def adapter(case: GoldenCase) -> Mapping[str, Tensor]:
        extras = {"mask": case.inputs.get("mask")} if masked else {}
        return {"value": loss(case.inputs["attention_S"], case.inputs["attention_T"], **extras)}

    return adapter


ADAPTERS: dict[str, Adapter] = {
    "fitnet": _per_layer(lambda case, s, t: F.hint_loss(s, t)),
    "at": _per_layer(lambda case, s, t: F.attention_transfer_loss(s, t, power=case.params["p"])),
    "nst": _per_layer(lambda case, s, t: F.neuron_selectivity_loss(s, t)),
    "ft_factor": _per_layer(
        lambda case, s, t: F.factor_transfer_loss(s, t, power=case.params["p1"], order=case.params["p2"])
    ),
    "fsp": _fsp,
    "ab": _ab,
    "vid": _vid,
    "srrl": _srrl,
    "mgd": _mgd,
    "cwd": _per_layer(
        lambda case, s, t: case.params["w"] * F.channel_wise_divergence_loss(s, t, temperature=case.params["tau"])
    ),
    "pkd_feat": _per_layer(lambda case, s, t: case.params["w"] * F.pearson_feature_loss(s, t)),
    "reviewkd_hcl": _hcl,
    "reviewkd_abf": _abf,
    "ofd_feat": _ofd_feat,
    "ofd_margin": _ofd_margin,
    "textbrewer_hid_mse": _tokens(F.hidden_state_mse_loss),
    "textbrewer_cos": _tokens(F.hidden_state_cosine_loss),
    "textbrewer_pkd": _tokens(F.first_token_loss, masked=False),
}
