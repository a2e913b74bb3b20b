"""More diverse experts with consistency self-distillation, for long-tailed data (MDCS)."""

from limbeck_vision.methods.mdcs.losses import (
    ConfidentConsistencyLoss,
    DiverseExpertsLoss,
    check_class_counts,
    confident_consistency_loss,
    confident_instances,
    diverse_experts_loss,
    prior_offsets,
)
from limbeck_vision.methods.mdcs.model import ExpertResNet, expert_resnet8, expert_resnet32
from limbeck_vision.methods.mdcs.views import (
    Cutout,
    PickView,
    TwoViewCall,
    TwoViews,
    strong_cifar,
    strong_digits,
    weak_cifar,
)

__all__ = [
    "ConfidentConsistencyLoss",
    "Cutout",
    "DiverseExpertsLoss",
    "ExpertResNet",
    "PickView",
    "TwoViewCall",
    "TwoViews",
    "check_class_counts",
    "confident_consistency_loss",
    "confident_instances",
    "diverse_experts_loss",
    "expert_resnet8",
    "expert_resnet32",
    "prior_offsets",
    "strong_cifar",
    "strong_digits",
    "weak_cifar",
]
