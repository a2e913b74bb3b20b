"""The evaluator of a run that classifies texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmengine.evaluator import BaseMetric
from sklearn.metrics import f1_score, matthews_corrcoef
from torch import Tensor
from torch.nn.functional import cross_entropy

from limbeck_core.errors import DataError, ShapeError


def evaluate(predicted: npt.ArrayLike, targets: npt.ArrayLike) -> dict[str, float]:
    """Judge predicted classes.

    Args:
        predicted: One class a text: numbers or names.
        targets: The true ones.

    Returns:
        ``accuracy`` and ``f1`` (macro, over the classes that occur) in per cent, ``matthews`` times 100.

    Raises:
        ShapeError: if the numbers differ.
        DataError: if there are none.
    """
    ours, truth = np.asarray(predicted), np.asarray(targets)
    if ours.shape != truth.shape or ours.ndim != 1:
        raise ShapeError(f"predicted and targets must be rows of one length, got {ours.shape} and {truth.shape}")
    if not len(truth):
        raise DataError("there is nothing to judge: give at least one predicted class and its target")
    return {
        "accuracy": 100.0 * float((ours == truth).mean()),
        "f1": 100.0 * float(f1_score(truth, ours, average="macro")),
        "matthews": 100.0 * float(matthews_corrcoef(truth, ours)),
    }


class TextClassificationMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Accuracy, macro F1, Matthews correlation and likelihood of class scores, in MMEngine's evaluator.

    Keys: ``accuracy`` and ``f1`` (macro, over the classes that occur) in per cent, ``matthews`` times 100 (CoLA's
    measure), ``nll`` in nats. ``per_sample`` holds 100 or 0 for each sample of the last evaluation, by which
    ``limbeck compare`` resamples.

    Args:
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(self, *, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
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
        self.results.extend(zip(logits.detach().cpu().float().numpy(), targets, strict=True))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the measures of all samples."""
        logits, targets = (np.stack(column) for column in zip(*results, strict=True))
        predicted = logits.argmax(1)
        self.per_sample = {"accuracy": [100.0 * float(hit) for hit in predicted == targets]}
        return {
            **evaluate(predicted, targets),
            "nll": float(cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(targets))),
        }
