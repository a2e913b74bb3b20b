"""Average precision of COCO and of KITTI, from files and in runs, and pictures of boxes."""

from __future__ import annotations

from limbeck_detection.evaluation.bev_pictures import draw_scenes
from limbeck_detection.evaluation.checkpoint import Judged, judge_checkpoint
from limbeck_detection.evaluation.coco import (
    average_precision,
    evaluate,
    evaluate_with_curves,
    numbers_and_curves,
    table,
)
from limbeck_detection.evaluation.kitti import evaluate_kitti, evaluate_kitti_folders, kitti_table
from limbeck_detection.evaluation.kitti_metric import KittiMetric, detections_to_objects
from limbeck_detection.evaluation.metric import CocoMetric
from limbeck_detection.evaluation.pictures import draw_detections, draw_precision_recall
from limbeck_detection.evaluation.speed import Speed, measure_speed

__all__ = [
    "CocoMetric",
    "Judged",
    "KittiMetric",
    "Speed",
    "average_precision",
    "detections_to_objects",
    "draw_detections",
    "draw_precision_recall",
    "draw_scenes",
    "evaluate",
    "evaluate_kitti",
    "evaluate_kitti_folders",
    "evaluate_with_curves",
    "judge_checkpoint",
    "kitti_table",
    "measure_speed",
    "numbers_and_curves",
    "table",
]
