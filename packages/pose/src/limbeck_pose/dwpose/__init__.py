"""DWPose: two stages of distillation for whole-body pose."""

from limbeck_pose.dwpose.heads import HeadCall, HeadDistiller
from limbeck_pose.dwpose.losses import SimCCDivergenceLoss, SimCCTaskLoss, simcc_divergence_loss, simcc_task_loss

__all__ = [
    "HeadCall",
    "HeadDistiller",
    "SimCCDivergenceLoss",
    "SimCCTaskLoss",
    "simcc_divergence_loss",
    "simcc_task_loss",
]
