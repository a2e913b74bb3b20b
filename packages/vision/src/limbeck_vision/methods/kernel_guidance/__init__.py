"""Self-distillation guided by the ground truth: closed forms for kernel regression, and the procedure for networks."""

from limbeck_vision.methods.kernel_guidance.losses import (
    GuidedDistiller,
    LabelMSELoss,
    ProbabilityMSELoss,
    probability_mse_loss,
)
from limbeck_vision.methods.kernel_guidance.regression import SelfDistilledRidge, optimal_target_weight, rbf_kernel

__all__ = [
    "GuidedDistiller",
    "LabelMSELoss",
    "ProbabilityMSELoss",
    "SelfDistilledRidge",
    "optimal_target_weight",
    "probability_mse_loss",
    "rbf_kernel",
]
