"""Distillation without labels, on labelled and selected unlabelled images (SSLD)."""

from limbeck_vision.methods.ssld.data import SelectedImages, TopPerClass, WithDistractors, WithoutLabels
from limbeck_vision.methods.ssld.losses import SymmetricKLLoss, symmetric_kl_loss
from limbeck_vision.methods.ssld.selection import read_selection, score_images, select_per_class, write_selection
from limbeck_vision.methods.ssld.teacher import BatchStatisticsTeacher

__all__ = [
    "BatchStatisticsTeacher",
    "SelectedImages",
    "SymmetricKLLoss",
    "TopPerClass",
    "WithDistractors",
    "WithoutLabels",
    "read_selection",
    "score_images",
    "select_per_class",
    "symmetric_kl_loss",
    "write_selection",
]
