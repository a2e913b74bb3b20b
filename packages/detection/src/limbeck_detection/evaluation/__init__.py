"""COCO's average precision, from files and in runs, and pictures of boxes."""

from __future__ import annotations

from limbeck_detection.evaluation.checkpoint import Judged, evaluate_checkpoint, judge_checkpoint
from limbeck_detection.evaluation.coco import average_precision, evaluate, table
from limbeck_detection.evaluation.metric import CocoMetric
from limbeck_detection.evaluation.pictures import draw_detections

__all__ = [
    "CocoMetric",
    "Judged",
    "average_precision",
    "draw_detections",
    "evaluate",
    "evaluate_checkpoint",
    "judge_checkpoint",
    "table",
]
