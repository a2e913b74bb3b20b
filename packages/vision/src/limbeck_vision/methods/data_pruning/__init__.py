"""Distillation on a pruned data set: what is kept, how much the teacher weighs, and the scores to prune by."""

from limbeck_vision.methods.data_pruning.pruning import Pruned, PruningWeight, read_scores, write_scores
from limbeck_vision.methods.data_pruning.scores import (
    el2n_scores,
    entropy_scores,
    forgetting_scores,
    grand_scores,
    herding_order,
    margin_scores,
)
from limbeck_vision.methods.data_pruning.theory import distilled_ridge, ridge_solution

__all__ = [
    "Pruned",
    "PruningWeight",
    "distilled_ridge",
    "el2n_scores",
    "entropy_scores",
    "forgetting_scores",
    "grand_scores",
    "herding_order",
    "margin_scores",
    "read_scores",
    "ridge_solution",
    "write_scores",
]
