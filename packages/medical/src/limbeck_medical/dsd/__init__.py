"""DSD: dual self-distillation of U-shaped networks (Banerjee et al., arXiv:2306.03271)."""

from limbeck_medical.dsd.distiller import DSDDistiller, spread_over_voxels
from limbeck_medical.dsd.heads import UpsamplingHead
from limbeck_medical.dsd.losses import SelfDistillationLoss, self_distillation_loss
from limbeck_medical.dsd.networks import Level, Levels, find_levels, known_taps

__all__ = [
    "DSDDistiller",
    "Level",
    "Levels",
    "SelfDistillationLoss",
    "UpsamplingHead",
    "find_levels",
    "known_taps",
    "self_distillation_loss",
    "spread_over_voxels",
]
