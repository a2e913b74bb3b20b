"""The memory of PS-KD under mixup and CutMix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from limbeck_core import PastSelf

_MOST = 0.5  # share of an image from which a prediction counts as that image's


class MixedPastSelf(PastSelf):
    r"""Past predictions for batches that :func:`~limbeck_vision.data.mix_batch` mixed.

    .. math:: \lambda P_i + (1 - \lambda) P_j

    is what a tap reads for an image that holds the share :math:`\lambda` of sample i and the rest of sample j, so that
    the blended target is mixed like the label. A sample not seen before contributes the mixed label. The prediction for
    a mixed image is remembered as that of sample i only where :math:`\lambda \ge 1/2`; otherwise the older one stays.
    Batches that are not mixed are treated as by :class:`~limbeck_core.teacher.PastSelf`.

    The paper reports PS-KD with CutMix and does not print a rule for the memory: both rules are choices made here.

    Args:
        num_samples: See :class:`~limbeck_core.teacher.PastSelf`, as for all arguments.
        num_classes: Number of classes C.
        logits: Tap on the student's logits.
        dtype: Storage type of the memory.

    Raises:
        MatchError: if a mixed batch lacks ``ids``, or as :class:`~limbeck_core.teacher.PastSelf`.

    Reference:
        Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, arXiv:2006.12000, section 4.
    """

    def recall(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the mixed past probabilities of the batch's images, float32, shape ``(N, C)``."""
        own = super().recall(batch)
        if "mix_weight" not in batch:
            return own
        other = super().recall({**batch, "ids": batch["mix_ids"]})
        return torch.lerp(other, own, batch["mix_weight"].to(own).unsqueeze(1))

    def observe(self, batch: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
        """Store the softmax of the student's logits for the samples that their images mostly show."""
        if "mix_weight" in batch:
            mostly = batch["mix_weight"] >= _MOST
            ids = self._ids(batch)
            batch = {**batch, "ids": ids[mostly.cpu()]}
            seen = {**seen, "logits": seen["logits"][mostly]}
        super().observe(batch, seen)
