"""Self-supervised label augmentation and its distillation into one forward pass (SLA, SLA + SD)."""

from limbeck_vision.methods.sla.losses import (
    AggregatedViews,
    LabelAugmentationLoss,
    aggregated_logits,
    joint_target,
    label_augmentation_loss,
    single_view_logits,
)
from limbeck_vision.methods.sla.model import LabelAugmented
from limbeck_vision.methods.sla.views import TRANSFORMATIONS, RandomView, number_of_views, transformed_views

__all__ = [
    "TRANSFORMATIONS",
    "AggregatedViews",
    "LabelAugmentationLoss",
    "LabelAugmented",
    "RandomView",
    "aggregated_logits",
    "joint_target",
    "label_augmentation_loss",
    "number_of_views",
    "single_view_logits",
    "transformed_views",
]
