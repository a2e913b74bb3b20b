"""Hand key points and masks in a new domain, by two teachers whose disagreement says what to believe."""

from limbeck_pose.hand_adaptation.data import HandPairs, Hands
from limbeck_pose.hand_adaptation.distillers import SelfTraining, TwoTeachers
from limbeck_pose.hand_adaptation.losses import HandTaskLoss, confidence, divergence, hand_task_loss
from limbeck_pose.hand_adaptation.metric import HandMetric
from limbeck_pose.hand_adaptation.model import HandNet, trained
from limbeck_pose.hand_adaptation.views import HandAugmentation

__all__ = [
    "HandAugmentation",
    "HandMetric",
    "HandNet",
    "HandPairs",
    "HandTaskLoss",
    "Hands",
    "SelfTraining",
    "TwoTeachers",
    "confidence",
    "divergence",
    "hand_task_loss",
    "trained",
]
