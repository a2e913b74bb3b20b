"""From measured cases to means with intervals, tables and plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck_core.checks import check_between
from limbeck_core.errors import DataError
from limbeck_medical.evaluation.measures import (
    BOTH_EMPTY,
    INVENTED,
    MEASURES,
    MISSED,
    Array,
    CaseScores,
    MissingDistance,
)

ALL = "mean"  # of the structures, case by case


@dataclass(frozen=True)
class Interval:
    """A mean over cases with its confidence interval.

    Args:
        mean: NaN if no case counts.
        low: Lower end; NaN with fewer than two cases.
        high: Upper end.
        cases: How many cases count.
    """

    mean: float
    low: float
    high: float
    cases: int


def bootstrap_mean(values: Array, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean of the values that are numbers, with its percentile bootstrap interval over cases.

    Args:
        values: One value a case, shape ``(N,)``; NaN is left out.
        confidence: Share of resamples inside the interval.
        resamples: How many resamples of the cases are drawn.
        seed: Of the draw.

    Raises:
        ValueError: if ``confidence`` is not between 0 and 1, or ``resamples`` below 1.
    """
    check_between(confidence, "confidence", 0.0, 1.0)
    if resamples < 1:
        raise ValueError(f"resamples must be 1 or more, got {resamples}")
    kept = values[~np.isnan(values)]
    if len(kept) < 2:
        return Interval(float(kept[0]) if len(kept) else np.nan, np.nan, np.nan, len(kept))
    draw = np.random.RandomState(seed)
    means = np.concatenate(  # in parts, so that many cases do not fill the memory
        [kept[draw.randint(len(kept), size=(1, len(kept)))].mean(1) for _ in range(resamples)]
        if len(kept) > 2000
        else [kept[draw.randint(len(kept), size=(resamples, len(kept)))].mean(1)]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(kept.mean()), float(low), float(high), len(kept))


def over_structures(scores: Sequence[CaseScores], measure: str) -> Array:
    """Return a measure's mean over the structures of each case, shape ``(N,)``; NaN where no structure counts."""
    rows = [scores_of.of(measure) for scores_of in scores]
    return np.asarray([row[~np.isnan(row)].mean() if (~np.isnan(row)).any() else np.nan for row in rows])


def summarize(
    names: Sequence[str],
    scores: Sequence[CaseScores],
    classes: Sequence[str],
    *,
    missing_distance: MissingDistance = "exclude",
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return means, intervals, counts of missing structures and all values by case, as plain data.

    Args:
        names: Name of each case.
        scores: What was measured of it.
        classes: Names by label, the background first.
        missing_distance: How the cases were measured, for the notes; see :func:`measure_case`.
        confidence: Of the intervals.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Returns:
        A mapping: ``structures`` (by name, and ``"mean"`` over them: each measure's ``mean``, ``low``, ``high``,
        ``cases``; ``missed``, ``invented`` and ``absent`` as counts of cases), ``cases`` (by name and structure),
        ``confidence``, ``missing_distance``. NaN is ``None``.

    Raises:
        DataError: if there is no case.
    """
    if not scores:
        raise DataError("there is no case to evaluate: give at least one prediction with its label")
    structures: dict[str, Any] = {}
    for index, name in enumerate([*classes[1:], ALL]):
        is_mean = name == ALL and index == len(classes) - 1
        columns = {
            measure: over_structures(scores, measure)
            if is_mean
            else np.asarray([case.of(measure)[index] for case in scores])
            for measure in MEASURES
        }
        found: dict[str, Any] = {
            measure: vars(bootstrap_mean(values, confidence=confidence, resamples=resamples, seed=seed))
            for measure, values in columns.items()
        }
        states = [state for case in scores for state in (case.states if is_mean else [case.states[index]])]
        found |= {"missed": states.count(MISSED), "invented": states.count(INVENTED)}
        structures[name] = found | {"absent": states.count(BOTH_EMPTY)}
    by_case = {
        name: {
            structure: {measure: float(case.of(measure)[index]) for measure in MEASURES} | {"state": case.states[index]}
            for index, structure in enumerate(classes[1:])
        }
        for name, case in zip(names, scores, strict=True)
    }
    result: dict[str, Any] = _plain({"structures": structures, "cases": by_case})
    return result | {"confidence": confidence, "missing_distance": missing_distance}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def table(summary: Mapping[str, Any]) -> str:
    """Return a summary as text: one row a structure, means with intervals, and what was missed or invented."""
    head = ["structure", *(f"{title} ({unit})" for title, unit, _ in MEASURES.values()), "missed", "invented", "absent"]
    rows = [head]
    for name, found in summary["structures"].items():
        cells = [_cell(found[measure]) for measure in MEASURES]
        rows.append([name, *cells, *(str(found[count]) for count in ("missed", "invented", "absent"))])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*lines, "", *notes(summary)])


def notes(summary: Mapping[str, Any]) -> list[str]:
    """Return the sentences that a reader of the table needs."""
    total = summary["structures"][ALL]
    found = [
        f"{len(summary['cases'])} cases; brackets: {summary['confidence']:.0%} bootstrap interval over cases; the last "
        "row is the mean of the structures, case by case."
    ]
    if total["absent"]:
        found.append(f"{total['absent']} times a structure is absent from truth and prediction: not judged.")
    if total["missed"] or total["invented"]:
        excluded = summary["missing_distance"] == "exclude"
        then = "left out of the means, which flatters them" if excluded else "taken as the image's diagonal"
        found.append(
            f"{total['missed']} times a structure was missed and {total['invented']} times invented: its Dice is 0, "
            f"its distances are infinite and {then}."
        )
    return found


def _cell(interval: Mapping[str, Any]) -> str:
    if interval["mean"] is None:
        return "-"
    if interval["low"] is None:
        return f"{interval['mean']:.2f}"
    return f"{interval['mean']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"
