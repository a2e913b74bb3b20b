"""How good predictions are: accuracy, calibration, and how well confidence ranks them.

Every measure takes :class:`Predictions`, which checks scores and labels once. Accuracy and calibration error are in per
cent, areas under the risk-coverage curve times 1000, as the papers print them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import precision_recall_fscore_support
from torch import Tensor

from limbeck_core.errors import NonFiniteError, ShapeError, TargetError

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
ArrayLike = Tensor | npt.ArrayLike

_SUM_TOLERANCE = 1e-3  # half precision leaves this much in a row's sum


@dataclass(frozen=True)
class Predictions:
    """Checked class scores and labels; make one with :meth:`from_logits` or :meth:`from_probabilities`.

    Args:
        log_probabilities: Shape ``(N, C)``, float64.
        targets: Labels, shape ``(N,)``.
    """

    log_probabilities: Array
    targets: Labels

    @classmethod
    def from_logits(cls, logits: ArrayLike, targets: ArrayLike) -> Predictions:
        """Take raw scores of shape ``(N, C)`` and labels of shape ``(N,)``; a class may be ruled out by -infinity.

        Raises:
            ShapeError: if the shapes do not fit, or there are no samples or fewer than two classes.
            NonFiniteError: if a row holds NaN or infinity, or rules out every class.
            TargetError: if labels are no integers or outside the classes.
        """
        scores, labels = _checked(logits, targets, "logits")
        highest = scores.max(1)  # of a row with NaN, that is NaN
        _refuse_rows(~np.isfinite(highest), "logits", "NaN, infinity, or -infinity for every class")
        return cls(torch.from_numpy(scores).log_softmax(1).numpy(), labels)

    @classmethod
    def from_probabilities(cls, probabilities: ArrayLike, targets: ArrayLike) -> Predictions:
        """Take probabilities of shape ``(N, C)``, whose rows sum to 1, and labels of shape ``(N,)``.

        Raises:
            ValueError: if a row holds negative numbers or does not sum to 1.
            LimbeckError: as :meth:`from_logits`.
        """
        values, labels = _checked(probabilities, targets, "probabilities")
        _refuse_rows(~np.isfinite(values.sum(1)), "probabilities", "NaN or infinity")
        sums = values.sum(1)
        wrong = (values < 0).any(1) | (abs(sums - 1) > _SUM_TOLERANCE)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"probabilities must be >= 0 and sum to 1 in each row, but row {row} sums to {sums[row]:.4g} with "
                f"smallest value {values[row].min():.4g}: pass raw scores as logits instead"
            )
        with np.errstate(divide="ignore"):
            return cls(np.log(values / sums[:, None]), labels)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.log_probabilities.shape[1])

    @cached_property
    def labels(self) -> Labels:
        """The most probable class of each sample; of equal ones the first."""
        labels: Labels = self.log_probabilities.argmax(1)
        return labels

    @cached_property
    def confidences(self) -> Array:
        """Probability of the most probable class."""
        confidences: Array = np.exp(self.log_probabilities.max(1))
        return confidences

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the most probable class is the label."""
        correct: npt.NDArray[np.bool_] = self.labels == self.targets
        return correct

    def __len__(self) -> int:
        return len(self.targets)


def _checked(scores: ArrayLike, targets: ArrayLike, name: str) -> tuple[Array, Labels]:
    values, labels = _numpy(scores), _numpy(targets)
    if values.ndim != 2 or values.shape[1] < 2 or not len(values):
        raise ShapeError(
            f"{name} must have shape (N, C) with at least one sample and two classes, got {values.shape}"
            + (": give a binary problem two columns" if values.ndim == 1 else "")
        )
    if labels.shape != values.shape[:1]:
        raise ShapeError(
            f"targets must have shape ({len(values)},) to fit {name} of {values.shape}, got {labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise TargetError(f"targets must be integer labels, got {labels.dtype}")
    outside = (labels < 0) | (labels >= values.shape[1])
    if outside.any():
        first = int(np.argmax(outside))
        raise TargetError(
            f"targets must lie between 0 and {values.shape[1] - 1} ({name} of shape {values.shape}), got "
            f"{int(labels[first])} at position {first} ({int(outside.sum())} are outside)"
        )
    return values.astype(np.float64), labels.astype(np.int64)


def _numpy(values: ArrayLike) -> npt.NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.double() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _refuse_rows(bad: npt.NDArray[np.bool_], name: str, what: str) -> None:
    if bad.any():
        raise NonFiniteError(
            f"{name} hold {what} in {int(bad.sum())} of {len(bad)} rows (first: row {int(np.argmax(bad))}): look at "
            "what wrote them"
        )


# ---------------------------------------------------------------------- accuracy and likelihood


def top_k_accuracy(predictions: Predictions, k: int = 1) -> float:
    """Per cent of samples whose label is among the ``k`` most probable classes; of equal classes the first counts more.

    Raises:
        ValueError: if ``k`` is below 1 or above the number of classes.
    """
    if not 1 <= k <= predictions.num_classes:
        raise ValueError(f"k must lie between 1 and {predictions.num_classes}, the number of classes, got {k}")
    scores = predictions.log_probabilities
    own = scores[np.arange(len(predictions)), predictions.targets][:, None]
    before = np.arange(predictions.num_classes) < predictions.targets[:, None]
    rank = (scores > own).sum(1) + ((scores == own) & before).sum(1)
    return float(100 * (rank < k).mean())


def negative_log_likelihood(predictions: Predictions) -> float:
    """Mean of -log of the label's probability, in nats; infinite if a label was given probability 0."""
    own = predictions.log_probabilities[np.arange(len(predictions)), predictions.targets]
    return float(-own.mean())


SHOTS = ("many", "medium", "few")


def shot_accuracy(predictions: Predictions, train_counts: Sequence[int] | npt.ArrayLike) -> dict[str, float | None]:
    """Per cent correct for classes with many (over 100), medium (20 to 100) and few (under 20) training images.

    Args:
        predictions: Of a test set.
        train_counts: Training images of each class, shape ``(C,)``.

    Returns:
        The mean over the classes of each group that occur in the test set; ``None`` for a group without any.

    Raises:
        ShapeError: if there is not one count for each class.

    Reference:
        Liu et al., Large-Scale Long-Tailed Recognition in an Open World, arXiv:1904.05160, section 4.
    """
    counts = np.asarray(train_counts)
    if counts.shape != (predictions.num_classes,):
        raise ShapeError(f"train_counts must have shape ({predictions.num_classes},), got {counts.shape}")
    support = np.bincount(predictions.targets, minlength=len(counts))
    hits = np.bincount(predictions.targets[predictions.correct], minlength=len(counts))
    groups = (counts > 100, (counts >= 20) & (counts <= 100), counts < 20)
    result: dict[str, float | None] = {}
    for name, group in zip(SHOTS, groups, strict=True):
        tested = group & (support > 0)
        result[name] = float(100 * (hits[tested] / support[tested]).mean()) if tested.any() else None
    return result


def per_class(predictions: Predictions, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Accuracy (recall), precision and F1 of each class, in per cent.

    Args:
        predictions: Of a test set.
        names: Names of the classes; their numbers by default.

    Returns:
        One mapping for each class with ``name``, ``samples`` (in the test set), ``predicted`` (how often),
        ``accuracy``, ``precision`` and ``f1``; ``None`` where there is nothing to divide by.

    Raises:
        ShapeError: if there is not one name for each class.
    """
    names = [str(label) for label in range(predictions.num_classes)] if names is None else list(names)
    if len(names) != predictions.num_classes:
        raise ShapeError(f"names must be {predictions.num_classes}, one for each class, got {len(names)}")
    labels = np.arange(len(names))
    precision, recall, f1, support = precision_recall_fscore_support(
        predictions.targets, predictions.labels, labels=labels, zero_division=np.nan
    )
    predicted = np.bincount(predictions.labels, minlength=len(names))
    return [
        {
            "name": name,
            "samples": int(support[label]),
            "predicted": int(predicted[label]),
            "accuracy": _per_cent(recall[label]),
            "precision": _per_cent(precision[label]),
            "f1": _per_cent(f1[label]),
        }
        for label, name in zip(labels, names, strict=True)
    ]


def _per_cent(share: float) -> float | None:
    return None if np.isnan(share) else float(100 * share)


# ---------------------------------------------------------------------- calibration


class Reliability(NamedTuple):
    """A reliability diagram as data.

    Args:
        edges: Borders of the bins, one more than there are bins.
        samples: Samples in each bin.
        confidence: Mean confidence in each bin; ``None`` in an empty one.
        accuracy: Share of correct samples in each bin; ``None`` in an empty one.
    """

    edges: list[float]
    samples: list[int]
    confidence: list[float | None]
    accuracy: list[float | None]


def reliability(predictions: Predictions, bins: int = 10) -> Reliability:
    """Sort samples by confidence into bins of equal width, open below and closed above.

    Raises:
        ValueError: if ``bins`` is below 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    edges = np.linspace(0, 1, bins + 1)
    # a confidence on a border belongs below it; sums of probabilities may exceed 1 by a rounding
    index = np.searchsorted(edges[1:-1], predictions.confidences, side="left")
    samples = np.bincount(index, minlength=bins)
    confidence = np.bincount(index, weights=predictions.confidences, minlength=bins)
    correct = np.bincount(index, weights=predictions.correct, minlength=bins)
    return Reliability(
        edges.tolist(),
        samples.tolist(),
        [float(total / count) if count else None for total, count in zip(confidence, samples, strict=True)],
        [float(total / count) if count else None for total, count in zip(correct, samples, strict=True)],
    )


def expected_calibration_error(predictions: Predictions, bins: int = 10) -> float:
    """Distance of accuracy from confidence in each bin of :func:`reliability`, weighted by its samples, in per cent.

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, arXiv:1706.04599, eq. 3, with the bins of Kim et al.,
        arXiv:2006.12000.
    """
    diagram = reliability(predictions, bins)
    gaps = [
        count * abs(confidence - accuracy)
        for count, confidence, accuracy in zip(diagram.samples, diagram.confidence, diagram.accuracy, strict=True)
        if confidence is not None and accuracy is not None
    ]
    return float(100 * sum(gaps) / len(predictions))


# ---------------------------------------------------------------------- ranking by confidence


class RiskCoverage(NamedTuple):
    """A risk-coverage curve as data.

    Args:
        coverage: Share of samples that are answered, the most confident first.
        risk: Share of errors among them.
    """

    coverage: list[float]
    risk: list[float]


def risk_coverage(predictions: Predictions, points: int | None = None) -> RiskCoverage:
    """Error rate among the most confident samples, for each number of them.

    Samples of equal confidence come in no order: each counts with the mean error of all of them.

    Args:
        predictions: Of a test set.
        points: Largest number of points, spread evenly; all by default.

    Raises:
        ValueError: if ``points`` is below 2.

    Reference:
        Geifman et al., Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, arXiv:1805.08206, section 2.
    """
    if points is not None and points < 2:
        raise ValueError(f"points must be at least 2, got {points}")
    risk = _risks(predictions)
    total = len(risk)
    kept = np.arange(total)
    if points is not None and points < total:
        kept = np.linspace(0, total - 1, points).round().astype(int)
    return RiskCoverage(((kept + 1) / total).tolist(), risk[kept].tolist())


def _risks(predictions: Predictions) -> Array:
    _, group = np.unique(-predictions.confidences, return_inverse=True)
    sizes = np.bincount(group)
    errors = np.bincount(group, weights=~predictions.correct) / sizes
    risks: Array = np.cumsum(np.repeat(errors, sizes)) / np.arange(1, len(predictions) + 1)
    return risks


def area_under_risk_coverage(predictions: Predictions) -> float:
    """AURC times 1000: the mean of :func:`risk_coverage` over every coverage; lower is better."""
    return float(1000 * _risks(predictions).mean())


def excess_area_under_risk_coverage(predictions: Predictions) -> float:
    """E-AURC times 1000: AURC above that of the best order of the same errors, which puts them all last.

    Reference:
        Geifman et al., arXiv:1805.08206, section 4.
    """
    total, errors = len(predictions), int((~predictions.correct).sum())
    number = np.arange(1, errors + 1)
    best = (number / (total - errors + number)).sum() / total
    return float(area_under_risk_coverage(predictions) - 1000 * best)
