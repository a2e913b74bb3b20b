"""A vision transformer as an ensemble of paths: pruning, EnsembleScale, and self-distillation from long to short."""

from limbeck_vision.methods.path_ensemble.model import EnsembleScale, PathEnsembleViT
from limbeck_vision.methods.path_ensemble.paths import PathAccuracies, path_accuracies

__all__ = ["EnsembleScale", "PathAccuracies", "PathEnsembleViT", "path_accuracies"]
