"""Mean per-vertical average precision, by which generalists and specialists can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

from limbeck_core.errors import ShapeError
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.methods.knowledge_concentration.verticals import check_sizes, starts

Floats = npt.NDArray[np.floating[Any]]


def vertical_average_precision(logits: Floats, targets: npt.NDArray[np.int64], sizes: Sequence[int]) -> list[float]:
    """Average precision inside each vertical, in per cent.

    Of a vertical, its own samples are ranked by the score of each of its labels; the average precisions of its labels
    are averaged. The paper names the measure and gives no formula: averaging over labels, and leaving other verticals'
    samples out (which specialists cannot be asked about), are choices made here.

    Args:
        logits: Scores of all labels, ordered by vertical, shape ``(S, N)``.
        targets: Class indices, shape ``(S,)``.
        sizes: Labels of each vertical.

    Returns:
        One number a vertical; NaN for one without samples.

    Raises:
        ShapeError: if the scores have another number of labels.
    """
    checked = check_sizes(sizes)
    if logits.ndim != 2 or logits.shape[1] != sum(checked) or len(logits) != len(targets):
        raise ShapeError(f"logits must have shape ({len(targets)}, {sum(checked)}), got {logits.shape}")
    found = []
    for start, size in zip(starts(checked), checked, strict=True):
        rows = (targets >= start) & (targets < start + size)
        truth, scores = targets[rows] - start, logits[rows, start : start + size]
        values = [average_precision_score(truth == label, scores[:, label]) for label in np.unique(truth)]
        found.append(100.0 * float(np.mean(values)) if values else float("nan"))
    return found


class VerticalPrecision(ClassificationMetric):
    """Adds ``mpvap``, the mean of :func:`vertical_average_precision` over verticals, to the usual measures.

    Args:
        sizes: Labels of each vertical.
        options: As :class:`~limbeck_vision.evaluation.ClassificationMetric`.
    """

    def __init__(self, sizes: Sequence[int], **options: Any) -> None:
        super().__init__(**options)
        self.sizes = check_sizes(sizes)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the measures of all samples."""
        logits, targets = zip(*results, strict=True)
        values = vertical_average_precision(np.stack(logits), np.stack(targets), self.sizes)
        metrics: Mapping[str, float] = super().compute_metrics(results)
        return {**metrics, "mpvap": float(np.nanmean(values))}
