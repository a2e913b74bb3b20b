"""The evaluator of a run that scores pairs of sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from scipy.stats import spearmanr
from torch import Tensor

from limbeck_core.errors import DataError, ShapeError

COLLAPSED = 1e-4  # a spread of scores below which their order means nothing


class PairScoreMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Rank correlation of predicted and true scores, in MMEngine's evaluator.

    Keys: ``spearman``, times 100, and ``spread``, the standard deviation of the predictions. Constant predictions (a
    spread below 1e-4, a collapsed encoder) have the correlation 0 instead of NaN.

    Args:
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(self, *, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: Mapping[str, Any], data_samples: Tensor | Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch with its ``targets``, shape ``(N,)``.
            data_samples: Predicted scores, shape ``(N,)``.

        Raises:
            DataError: if the batch has no targets.
            ShapeError: if the shapes differ.
        """
        if "targets" not in data_batch:
            raise DataError(f"evaluation needs 'targets' in the batch, it has {', '.join(data_batch)}")
        scores = data_samples if isinstance(data_samples, Tensor) else torch.stack(list(data_samples))
        targets = torch.as_tensor(data_batch["targets"])
        if scores.shape != targets.shape:
            raise ShapeError(f"predictions must have shape {tuple(targets.shape)}, got {tuple(scores.shape)}")
        self.results.extend(zip(scores.detach().cpu().double().tolist(), targets.tolist(), strict=True))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the correlation over all pairs."""
        scores, targets = (np.asarray(column, dtype=np.float64) for column in zip(*results, strict=True))
        spread = float(scores.std())
        return {
            "spearman": 0.0 if spread < COLLAPSED else 100.0 * float(spearmanr(scores, targets).statistic),
            "spread": spread,
        }
