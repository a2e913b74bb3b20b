"""PointDistiller: local structure and importance of a 3D detector, for a narrower one (arXiv:2205.11098)."""

from limbeck_detection.pointdistiller.graph import GraphLayer
from limbeck_detection.pointdistiller.losses import (
    BEVDistillationLoss,
    PointDistillationLoss,
    ShuffledVoxelDistillationLoss,
    VoxelDistillationLoss,
    importance_weights,
    local_distillation_loss,
)
from limbeck_detection.pointdistiller.matches import voxel_match
from limbeck_detection.pointdistiller.neighbors import nearest_neighbors, select_most_important, squared_distances

__all__ = [
    "BEVDistillationLoss",
    "GraphLayer",
    "PointDistillationLoss",
    "ShuffledVoxelDistillationLoss",
    "VoxelDistillationLoss",
    "importance_weights",
    "local_distillation_loss",
    "nearest_neighbors",
    "select_most_important",
    "squared_distances",
    "voxel_match",
]
