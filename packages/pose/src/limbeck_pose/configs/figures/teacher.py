# A small RTMPose with every key point labelled: the teacher of the drawn figures.
#   python -m limbeck_pose.rendered figures
#   limbeck train pose/figures/teacher --data-root figures
#   limbeck test pose/figures/teacher --data-root figures --checkpoint work_dirs/teacher/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller
from limbeck_pose.dwpose import SimCCTaskLoss
from limbeck_pose.rtmpose import RTMPose

with read_base():
    from .._base_.figures import *

train_dataloader.dataset.annotations = "train_full.json"
model = dict(
    type=Distiller,
    student=dict(type=RTMPose, width=0.25, depth=0.17, keypoints=10, input_size=(64, 64)),
    task_loss=dict(type=SimCCTaskLoss),
    task_weight=64.0,
)
