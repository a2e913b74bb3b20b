"""Judging hands: correct key points over all thresholds, mean error, intersection over union of masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from limbeck_core.build import build
from limbeck_core.checks import check_positive
from limbeck_core.errors import DataError
from limbeck_pose.heatmap import Heatmap

_THRESHOLDS = 100


class HandMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Key points and masks of hands, in pixels of the crop.

    Keys: ``auc``, the mean share of correct key points over 100 thresholds up to ``pixels``, per cent; ``error``, the
    mean distance in pixels; ``iou`` of masks at 0.5, per cent; ``score``, the mean of ``auc`` and ``iou``. A mask that
    is missed altogether counts as 0; the released code drops it from the mean. ``per_sample`` holds each hand's
    ``auc``, by which ``limbeck compare`` resamples.

    Args:
        codec: Heatmap codec of the network, or its config.
        pixels: Largest threshold. The paper's 20 pixels are of crops of 128.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.

    Raises:
        ValueError: if ``pixels`` is not above 0.
    """

    default_prefix = ""

    def __init__(
        self,
        codec: Heatmap | Mapping[str, Any],
        *,
        pixels: float = 20.0,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_positive(pixels, "pixels")
        self.codec: Heatmap = build(codec) if isinstance(codec, Mapping) else codec
        self.pixels = pixels
        self.per_sample: dict[str, list[float]] = {}

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch with its ``hand``, as :class:`~limbeck_pose.hand_adaptation.data.Hands` gives it.
            data_samples: Heatmaps ``(N, K, h, w)`` and logits of masks ``(N, 1, H, W)``.

        Raises:
            DataError: if the batch has no hands.
        """
        if "hand" not in data_batch:
            raise DataError(f"evaluation needs 'hand' in the batch, it has {', '.join(data_batch)}")
        heatmaps, masks = (tensor.detach().float().cpu() for tensor in data_samples)
        points, _ = self.codec.decode(heatmaps)
        hand = data_batch["hand"]
        for number in range(len(points)):
            truth = torch.as_tensor(hand["points"][number]).cpu()
            off = torch.linalg.vector_norm(points[number] - truth, dim=-1).numpy()
            visible = torch.as_tensor(hand["visible"][number]).cpu().numpy() > 0
            found, mask = masks[number] > 0, torch.as_tensor(hand["mask"][number]).cpu() > 0.5
            union = int((found | mask).sum())
            overlap = float((found & mask).sum()) / union if union else 1.0
            self.results.append((off, visible, overlap))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the figures over all hands."""
        off, visible, overlaps = (np.stack(column) for column in zip(*results, strict=True))
        thresholds = np.linspace(0, self.pixels, _THRESHOLDS)
        correct = (off[..., None] <= thresholds).mean(-1)
        labelled = visible.any(1)
        self.per_sample = {
            "auc": [100.0 * float(c[v].mean()) for c, v in zip(correct[labelled], visible[labelled], strict=True)]
        }
        auc, iou = 100.0 * float(correct[visible].mean()), 100.0 * float(overlaps.mean())
        return {"auc": auc, "error": float(off[visible].mean()), "iou": iou, "score": (auc + iou) / 2}
