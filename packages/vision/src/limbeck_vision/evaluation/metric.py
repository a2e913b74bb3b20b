"""The evaluator of a run: collects logits over the test set and gives the measures at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from limbeck_core.errors import DataError, ShapeError
from limbeck_vision.evaluation.measures import Predictions
from limbeck_vision.evaluation.summary import scalars


class ClassificationMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Accuracy, calibration and ranking of class scores, in MMEngine's evaluator.

    Keys: ``top1`` and ``top5`` (with more than five classes) in per cent, ``nll`` in nats, ``ece`` in per cent,
    ``aurc`` and ``eaurc`` times 1000. Accuracy is better when larger, the others when smaller. ``per_sample`` holds the
    outcome of each sample of the last evaluation, 100 or 0, by which ``limbeck compare`` resamples.

    Args:
        train_counts: Training images of each class; with them ``many``, ``medium`` and ``few`` are given as well (where
            such classes are tested).
        bins: Bins of the calibration error.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(
        self,
        train_counts: Sequence[int] | None = None,
        *,
        bins: int = 10,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.train_counts = train_counts
        self.bins = bins
        self.per_sample: dict[str, list[float]] = {}

    def process(self, data_batch: Mapping[str, Any], data_samples: Tensor | Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch with its ``targets``, shape ``(N,)``.
            data_samples: What the model predicted: logits ``(N, C)``, or N rows of them.

        Raises:
            DataError: if the batch has no targets.
            ShapeError: if the numbers of targets and predictions differ, or predictions are no rows of logits.
        """
        if "targets" not in data_batch:
            raise DataError(f"evaluation needs 'targets' in the batch, it has {', '.join(data_batch)}")
        targets = torch.as_tensor(data_batch["targets"]).cpu().numpy()
        logits = data_samples if isinstance(data_samples, Tensor) else torch.stack(list(data_samples))
        if logits.ndim != 2 or len(logits) != len(targets):
            raise ShapeError(
                f"predictions must be logits of shape ({len(targets)}, C), one row for each target, got "
                f"{tuple(logits.shape)}"
            )
        rows = logits.detach().to("cpu", torch.float64 if logits.dtype == torch.float64 else torch.float32).numpy()
        # one entry for each sample, so that samples repeated to fill up ranks can be dropped; an array's row takes only
        # its own bytes along to other ranks, a tensor's row the whole batch
        self.results.extend(zip(rows, targets, strict=True))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the measures of all samples."""
        logits, targets = zip(*results, strict=True)
        predictions = Predictions.from_logits(np.stack(logits), np.stack(targets))
        self.per_sample = {"top1": [100.0 * float(hit) for hit in predictions.correct]}
        numbers = scalars(predictions, train_counts=self.train_counts, bins=self.bins)
        return {name: number for name, number in numbers.items() if number is not None}
