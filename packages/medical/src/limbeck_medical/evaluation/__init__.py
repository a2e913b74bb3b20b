"""How good a segmentation is: by structure, in millimetres, with intervals over cases, and pictures of it.

``SegmentationMetric`` is loaded when it is first used, since it brings MMEngine along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from limbeck_core.errors import closest
from limbeck_medical.evaluation.files import Pair, evaluate_files, pair_files
from limbeck_medical.evaluation.measures import MEASURES, CaseScores, measure_case
from limbeck_medical.evaluation.pictures import draw_overlay
from limbeck_medical.evaluation.summary import Interval, bootstrap_mean, over_structures, summarize, table

if TYPE_CHECKING:
    from limbeck_medical.evaluation.metric import SegmentationMetric

__all__ = [
    "MEASURES",
    "CaseScores",
    "Interval",
    "Pair",
    "SegmentationMetric",
    "bootstrap_mean",
    "draw_overlay",
    "evaluate_files",
    "measure_case",
    "over_structures",
    "pair_files",
    "summarize",
    "table",
]


def __getattr__(name: str) -> Any:
    if name == "SegmentationMetric":
        from limbeck_medical.evaluation.metric import SegmentationMetric  # noqa: PLC0415

        return SegmentationMetric
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {closest(name, __all__)}")
