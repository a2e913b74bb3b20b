"""Adapters from golden items to :mod:`limbeck_core.functional.contrast`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import linear

from limbeck_core import functional as F
from limbeck_core.conformance.harness import Adapter, GoldenCase
from limbeck_core.schedules import Linear, Progress


def _crd(case: GoldenCase) -> Mapping[str, Tensor]:
    """Two calls: normalisers are estimated on the first, memories move after each."""
    x, p = case.inputs, case.params
    memory = {"v1": x["memory_v1"].clone(), "v2": x["memory_v2"].clone()}
    normalizers: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    for call, suffix in ((1, ""), (2, "2")):
        ids, indices = x[f"idx{suffix}"], x[f"contrast_idx{suffix}"]
        student = linear(x[f"f_s{suffix}"], x["Ws"], x["bs"])
        teacher = linear(x[f"f_t{suffix}"], x["Wt"], x["bt"])
        if not normalizers:
            for key, vectors, bank in (("v1", student, "v2"), ("v2", teacher, "v1")):
                logits = F.contrast_logits(vectors, memory[bank], indices, temperature=p["nce_t"])
                normalizers[key] = F.contrast_normalizer(logits, num_samples=p["n_data"])
                outputs[f"out_Z_{key}"] = normalizers[key]
        loss = F.contrastive_representation_loss(
            student,
            teacher,
            memory["v1"],
            memory["v2"],
            indices,
            student_normalizer=normalizers["v1"],
            teacher_normalizer=normalizers["v2"],
            temperature=p["nce_t"],
        )
        outputs["value" if call == 1 else "out_value_call2"] = loss
        for key, vectors in (("v1", student), ("v2", teacher)):
            memory[key][ids] = F.moving_memory(memory[key], ids, vectors, momentum=p["nce_m"])
            outputs[f"out_memory_{key}_after{call}"] = memory[key].clone()
    return outputs


def _dino(case: GoldenCase) -> Mapping[str, Tensor]:
    p = case.params
    warm_up = p["warmup_teacher_temp_epochs"]
    # the reference reaches the final temperature in the last epoch of the warm-up
    temperature = Linear(p["warmup_teacher_temp"], p["teacher_temp"], until=warm_up - 1, by="epoch")
    center = torch.zeros(p["out_dim"], dtype=torch.float64)
    losses, centers = [], []
    for call, epoch in enumerate(p["epochs"]):
        student, teacher = case.inputs[f"student{call}"], case.inputs[f"teacher{call}"]
        losses.append(
            F.dino_loss(
                student,
                teacher,
                center=center,
                student_temperature=p["student_temp"],
                teacher_temperature=temperature(Progress(epoch=epoch)),
            )
        )
        center = F.moving_center(center, teacher, momentum=p["center_momentum"])
        centers.append(center)
    schedule = [temperature(Progress(epoch=epoch)) for epoch in range(p["nepochs"])]
    return {
        "value": torch.stack(losses).sum(),
        "out_losses": torch.stack(losses),
        "out_centers": torch.stack(centers),
        "out_teacher_temp_schedule": torch.tensor(schedule, dtype=torch.float64),
    }


def _discovr_sinkhorn(case: GoldenCase) -> Mapping[str, Tensor]:
    scores = case.inputs["scores"]
    return {"value": F.sinkhorn_assignment(scores, epsilon=case.params["eps"], iterations=case.params["iters"])}


def _atst_frame(case: GoldenCase) -> Mapping[str, Tensor]:
    """Symmetric: each half of the rows, one view, predicts the other half."""
    student, teacher = case.inputs["student"], case.inputs["teacher"]
    compared = torch.cat(teacher.chunk(2)[::-1]) if case.params["symmetric"] else teacher
    return {"value": F.normalized_mse_loss(student, compared), **_spreads(student, teacher)}


def _atst_clip(case: GoldenCase) -> Mapping[str, Tensor]:
    """Every crop of the student predicts both of the teacher's views but its own."""
    student, teacher = case.inputs["student"], case.inputs["teacher"]
    crops, views = student.chunk(case.params["ncrops"]), teacher.chunk(2)
    pairs = [(crop, view) for v, view in enumerate(views) for c, crop in enumerate(crops) if c != v]
    losses = torch.stack([F.normalized_mse_loss(crop, view) for crop, view in pairs])
    return {"value": losses.mean(), **_spreads(student, teacher)}


def _spreads(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """What the reference watches for collapse: the spread of the normalised vectors, averaged over their entries."""
    return {
        f"out_std_{side}": (F.unit_vectors(rows).var(0) + 1e-6).sqrt().mean()
        for side, rows in (("student", student), ("teacher", teacher))
    }


ADAPTERS: dict[str, Adapter] = {
    "atst_clip": _atst_clip,
    "atst_frame": _atst_frame,
    "crd": _crd,
    "dino": _dino,
    "discovr_sinkhorn": _discovr_sinkhorn,
}
