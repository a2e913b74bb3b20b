"""Adapters from golden items to :mod:`limbeck_core.functional.logits`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from limbeck_core import functional as F
from limbeck_core.conformance.harness import Adapter, GoldenCase


def _kd(case: GoldenCase) -> Mapping[str, Tensor]:
    loss = F.kl_divergence_loss(
        case.inputs["logits_student"], case.inputs["logits_teacher"], temperature=case.params["T"]
    )
    return {"value": loss, "out_mdistiller": loss}


ADAPTERS: dict[str, Adapter] = {"kd": _kd}
