"""How good a classifier is, how well its confidence can be trusted, and the pictures of both.

``ClassificationMetric`` is loaded when it is first used, since it brings MMEngine along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from limbeck_core.errors import closest
from limbeck_vision.evaluation.measures import (
    Predictions,
    Reliability,
    RiskCoverage,
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
from limbeck_vision.evaluation.plots import draw_reliability, draw_risk_coverage
from limbeck_vision.evaluation.summary import evaluate, scalars, table

if TYPE_CHECKING:
    from limbeck_vision.evaluation.metric import ClassificationMetric

__all__ = [
    "ClassificationMetric",
    "Predictions",
    "Reliability",
    "RiskCoverage",
    "area_under_risk_coverage",
    "draw_reliability",
    "draw_risk_coverage",
    "evaluate",
    "excess_area_under_risk_coverage",
    "expected_calibration_error",
    "negative_log_likelihood",
    "per_class",
    "reliability",
    "risk_coverage",
    "scalars",
    "shot_accuracy",
    "table",
    "top_k_accuracy",
]


def __getattr__(name: str) -> Any:
    if name == "ClassificationMetric":
        from limbeck_vision.evaluation.metric import ClassificationMetric  # noqa: PLC0415

        return ClassificationMetric
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {closest(name, __all__)}")
