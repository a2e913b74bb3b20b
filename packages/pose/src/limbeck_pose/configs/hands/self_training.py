# Adaptation of a hand network by its own predictions (the paper's GAC): the control of pose/hands/two_teachers.
#   python -m limbeck_pose.hand_adaptation.rendered hands
#   limbeck train pose/hands/self_training --data-root hands        (after pose/hands/source)
#   limbeck test pose/hands/self_training --data-root hands --checkpoint work_dirs/self_training/student.pth
from mmengine.config import read_base

from limbeck_pose.hand_adaptation import HandNet, HandTaskLoss, SelfTraining, trained

with read_base():
    from .._base_.hands import *

network = dict(type=HandNet, width=16, stacks=1, depth=2, blocks=1, dropout=0.0)
model = dict(
    type=SelfTraining,
    student=dict(type=trained, model=network, checkpoint="work_dirs/source/student.pth"),
    codec=codec,
    task_loss=dict(type=HandTaskLoss, heatmap_weight=1e3, mask_weight=20.0, knee=1.0),  # squared: a short run
)
