"""PointDistiller: local structure and importance of a 3D detector, for a narrower one (arXiv:2205.11098)."""

from limbeck_detection.pointdistiller.graph import GraphLayer
from limbeck_detection.pointdistiller.losses import (
    BEVDistillationLoss,
    PointDistillationLoss,
    VoxelDistillationLoss,
    importance_weights,
    local_distillation_loss,
)
from limbeck_detection.pointdistiller.neighbors import nearest_neighbors, select_most_important, squared_distances

__all__ = [
    "BEVDistillationLoss",
    "GraphLayer",
    "PointDistillationLoss",
    "VoxelDistillationLoss",
    "importance_weights",
    "local_distillation_loss",
    "nearest_neighbors",
    "select_most_important",
    "squared_distances",
]
