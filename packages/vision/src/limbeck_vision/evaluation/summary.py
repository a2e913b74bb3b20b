"""All measures of one set of predictions: from a file or from memory, as plain data and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck_core.errors import DataError
from limbeck_vision.evaluation.measures import (
    Predictions,
    area_under_risk_coverage,
    excess_area_under_risk_coverage,
    expected_calibration_error,
    negative_log_likelihood,
    per_class,
    reliability,
    risk_coverage,
    shot_accuracy,
    top_k_accuracy,
)

_CURVE_POINTS = 200  # as many as a plot can show


def scalars(
    predictions: Predictions, *, train_counts: Sequence[int] | npt.ArrayLike | None = None, bins: int = 10
) -> dict[str, float | None]:
    """Return the numbers by name.

    Args:
        predictions: Of a test set.
        train_counts: Training images of each class; with them ``many``, ``medium`` and ``few`` are given.
        bins: Bins of the calibration error.

    Returns:
        ``top1`` and ``top5`` (with more than five classes) in per cent, ``nll`` in nats, ``ece`` in per cent, ``aurc``
        and ``eaurc`` times 1000.
    """
    result: dict[str, float | None] = {"top1": top_k_accuracy(predictions, 1)}
    if predictions.num_classes > 5:
        result["top5"] = top_k_accuracy(predictions, 5)
    result["nll"] = negative_log_likelihood(predictions)
    result["ece"] = expected_calibration_error(predictions, bins)
    result["aurc"] = area_under_risk_coverage(predictions)
    result["eaurc"] = excess_area_under_risk_coverage(predictions)
    if train_counts is not None:
        result.update(shot_accuracy(predictions, train_counts))
    return result


def evaluate(
    predictions: Predictions | Mapping[str, Any] | str | Path,
    *,
    train_counts: Sequence[int] | npt.ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    bins: int = 10,
) -> dict[str, Any]:
    """Compute every measure.

    Args:
        predictions: Checked predictions; or a mapping or ``.npz`` file with ``targets``, one of ``logits`` and
            ``probabilities``, and optionally ``train_counts`` and ``class_names``.
        train_counts: Training images of each class; the argument wins over the file.
        class_names: Names of the classes; the argument wins over the file.
        bins: Bins of the calibration error.

    Returns:
        Plain data: ``samples``, ``classes``, the numbers of :func:`scalars`, ``per_class``, ``reliability`` and
        ``risk_coverage`` (at most 200 points).

    Raises:
        DataError: if the file cannot be read or lacks arrays. A file is read without running what it may hold.
        LimbeckError: if scores and labels do not fit; see :class:`Predictions`.
    """
    if not isinstance(predictions, Predictions):
        fields = _read(Path(predictions)) if isinstance(predictions, (str, Path)) else predictions
        train_counts = fields.get("train_counts") if train_counts is None else train_counts
        if class_names is None and "class_names" in fields:
            class_names = [str(name) for name in fields["class_names"]]
        predictions = _predictions(fields)
    return {
        "samples": len(predictions),
        "classes": predictions.num_classes,
        **scalars(predictions, train_counts=train_counts, bins=bins),
        "per_class": per_class(predictions, class_names),
        "reliability": reliability(predictions, bins)._asdict(),
        "risk_coverage": risk_coverage(predictions, _CURVE_POINTS)._asdict(),
    }


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"there is no file of predictions {path}: expected an .npz with targets and logits")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zip, pickle and format errors have no common base; an .npy file has no .files
        raise DataError(
            f"{path} is no readable .npz file of plain arrays ({type(error).__name__}: {error}): write it with "
            "numpy.savez(path, logits=..., targets=...)"
        ) from error


def _predictions(fields: Mapping[str, Any]) -> Predictions:
    given = [name for name in ("logits", "probabilities") if name in fields]
    if len(given) != 1 or "targets" not in fields:
        raise DataError(
            f"predictions must hold targets and one of logits and probabilities, got {', '.join(fields) or 'nothing'}"
        )
    make = Predictions.from_logits if given == ["logits"] else Predictions.from_probabilities
    return make(fields[given[0]], fields["targets"])


_ROWS = {
    "top1": ("top-1 accuracy", "%"),
    "top5": ("top-5 accuracy", "%"),
    "nll": ("negative log-likelihood", "nats"),
    "ece": ("calibration error (ECE)", "%"),
    "aurc": ("AURC", "x 1000"),
    "eaurc": ("E-AURC", "x 1000"),
    "many": ("many-shot accuracy", "%"),
    "medium": ("medium-shot accuracy", "%"),
    "few": ("few-shot accuracy", "%"),
}


def table(result: Mapping[str, Any], *, worst: int = 5) -> str:
    """Write the numbers of :func:`evaluate` as text, with the classes that are recognised worst.

    Args:
        result: What :func:`evaluate` returned.
        worst: How many classes to list.
    """
    lines = [f"{result['samples']} samples, {result['classes']} classes"]
    for name, (title, unit) in _ROWS.items():
        if name in result:
            number = "-" if result[name] is None else f"{result[name]:.3f}"
            lines.append(f"  {title:<26}{number:>10} {unit}")
    tested = sorted((row for row in result["per_class"] if row["samples"]), key=lambda row: row["accuracy"])
    if worst and tested:
        lines.append("worst classes")
        for row in tested[:worst]:
            lines.append(f"  {row['name']:<26}{row['accuracy']:>10.3f} % of {row['samples']}")
    untested = [row["name"] for row in result["per_class"] if not row["samples"]]
    if untested:
        lines.append(f"{len(untested)} classes have no sample: {', '.join(untested[:10])}")
    return "\n".join(lines)


def per_class_table(result: Mapping[str, Any]) -> str:
    """Write accuracy, precision and F1 of every class as text; a dash where there is nothing to divide by.

    Args:
        result: What :func:`evaluate` returned.
    """
    width = max(len("class"), *(len(row["name"]) for row in result["per_class"]))
    lines = [f"  {'class':<{width}}  samples  predicted  accuracy  precision      F1"]
    for row in result["per_class"]:
        shares = ["-" if row[key] is None else f"{row[key]:.2f}" for key in ("accuracy", "precision", "f1")]
        numbers = f"{row['samples']:>7}  {row['predicted']:>9}  {shares[0]:>8}  {shares[1]:>9}  {shares[2]:>6}"
        lines.append(f"  {row['name']:<{width}}  {numbers}")
    return "\n".join(lines)
