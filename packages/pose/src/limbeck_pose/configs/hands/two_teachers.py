# Adaptation of a hand network by two teachers and their divergence (the paper's C-GAC), both branches at once.
#   python -m limbeck_pose.hand_adaptation.rendered hands
#   limbeck train pose/hands/two_teachers --data-root hands         (after the three runs of pose/hands/source)
#   limbeck test pose/hands/two_teachers --data-root hands --checkpoint work_dirs/two_teachers/student.pth
# The paper's first round trains key points alone: --cfg-options "+model.branches=('keypoints',)"
# Every image alike, as a control: --cfg-options +model.sharpness=0.0
from mmengine.config import read_base

from limbeck_core import Peers
from limbeck_pose.hand_adaptation import HandNet, HandTaskLoss, TwoTeachers, trained

with read_base():
    from .._base_.hands import *

network = dict(type=HandNet, width=16, stacks=1, depth=2, blocks=1, dropout=0.0)
model = dict(
    type=TwoTeachers,
    student=dict(
        type=Peers,
        student=dict(type=trained, model=network, checkpoint="work_dirs/source/student.pth"),
        first=dict(type=trained, model=network, checkpoint="work_dirs/source_first/student.pth"),
        second=dict(type=trained, model=network, checkpoint="work_dirs/source_second/student.pth"),
    ),
    codec=codec,
    task_loss=dict(type=HandTaskLoss, heatmap_weight=1e3, mask_weight=20.0, knee=1.0),  # squared: a short run
)
