"""Judging key points: COCO-WholeBody's average precision, correct key points, mean error, pictures."""

from limbeck_pose.evaluation.coco import average_precision, table
from limbeck_pose.evaluation.files import evaluate
from limbeck_pose.evaluation.metric import CorrectKeypoints, KeypointAP
from limbeck_pose.evaluation.nearness import nearness
from limbeck_pose.evaluation.pictures import draw_people, write_picture
from limbeck_pose.evaluation.similarity import (
    correct_keypoints,
    instance_score,
    keep_one_of_each,
    mean_error,
    similarity,
)

__all__ = [
    "CorrectKeypoints",
    "KeypointAP",
    "average_precision",
    "correct_keypoints",
    "draw_people",
    "evaluate",
    "instance_score",
    "keep_one_of_each",
    "mean_error",
    "nearness",
    "similarity",
    "table",
    "write_picture",
]
