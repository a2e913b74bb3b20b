"""How good a classifier is, how well its confidence can be trusted, and the pictures of both.

``ClassificationMetric`` and ``predict_checkpoint`` are loaded when they are first used: they bring MMEngine along.
"""

from __future__ import annotations

from importlib import import_module
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
from limbeck_vision.evaluation.summary import evaluate, per_class_table, scalars, table

if TYPE_CHECKING:
    from limbeck_vision.evaluation.checkpoint import predict_checkpoint
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
    "per_class_table",
    "predict_checkpoint",
    "reliability",
    "risk_coverage",
    "scalars",
    "shot_accuracy",
    "table",
    "top_k_accuracy",
]


_LATER = {"ClassificationMetric": "metric", "predict_checkpoint": "checkpoint"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {closest(name, __all__)}")
