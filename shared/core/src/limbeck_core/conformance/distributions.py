"""Adapters from golden items to :mod:`limbeck_core.functional.distributions`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from limbeck_core import functional as F
from limbeck_core.conformance.harness import Adapter, GoldenCase

_IGNORED_LABEL = -100


def _mask(case: GoldenCase) -> Tensor | None:
    return case.inputs["labels"] != _IGNORED_LABEL if "labels" in case.inputs else None


def _generalized_jsd(case: GoldenCase) -> Mapping[str, Tensor]:
    """The reference's "batchmean" without labels divides by the first axis alone; its "mean" also by the vocabulary."""
    student, mask = case.inputs["student_logits"], _mask(case)
    batchmean_of_sequences = case.params["reduction"] == "batchmean" and mask is None
    loss = F.generalized_jsd_loss(
        student,
        case.inputs["teacher_logits"],
        beta=case.params["beta"],
        temperature=case.params["temperature"],
        mask=mask,
        reduction="sum" if batchmean_of_sequences else "mean",
    )
    if batchmean_of_sequences:
        return {"value": loss / student.shape[0]}
    return {"value": loss / student.shape[-1] if case.params["reduction"] == "mean" else loss}


def _jsd_liger(case: GoldenCase) -> Mapping[str, Tensor]:
    loss = F.generalized_jsd_loss(
        case.inputs["student_logits"], case.inputs["teacher_logits"], beta=case.params["beta"], mask=_mask(case)
    )
    return {"value": loss}


ADAPTERS: dict[str, Adapter] = {"generalized_jsd": _generalized_jsd, "jsd_liger": _jsd_liger}
