"""Adapter from the golden item ``comodo`` to the loss and its queue."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from limbeck_audiovideo.comodo import SimilarityQueueLoss, similarity_queue_loss
from limbeck_core.conformance import Adapter, GoldenCase


def _comodo(case: GoldenCase) -> Mapping[str, Tensor]:
    """Successive calls; the reference takes the teacher's rows as they are, whatever their length."""
    x, p = case.inputs, case.params
    queue = SimilarityQueueLoss(x["queue"].shape[1], len(x["queue"])).double()
    queue.write(x["queue"])
    outputs: dict[str, Tensor] = {}
    losses = []
    for call in range(p["calls"]):
        student, teacher = x[f"student{call}"], x[f"teacher{call}"]
        losses.append(
            similarity_queue_loss(
                student,
                teacher,
                queue.rows(),
                student_temperature=p["student_temp"],
                teacher_temperature=p["teacher_temp"],
            )
        )
        queue.write(teacher)
        outputs[f"out_queue_after{call}"] = queue.rows()
    return {"value": torch.stack(losses).sum(), "out_losses": torch.stack(losses), **outputs}


ADAPTERS: dict[str, Adapter] = {"comodo": _comodo}
