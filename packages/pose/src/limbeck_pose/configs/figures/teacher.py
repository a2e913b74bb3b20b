# A small model with every key point labelled: the teacher of the drawn figures.
#   python -m limbeck_pose.rendered figures
#   limbeck train pose/figures/teacher --data-root figures
#   limbeck test pose/figures/teacher --data-root figures --checkpoint work_dirs/teacher/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller
from limbeck_pose.dwpose import SimCCTaskLoss
from limbeck_pose.figures import FigurePose

with read_base():
    from .._base_.figures import *

train_dataloader.dataset.annotations = "train_full.json"
train_cfg.max_epochs = 24
param_scheduler.T_max = 24
model = dict(
    type=Distiller,
    student=dict(type=FigurePose, width=48),
    task_loss=dict(type=SimCCTaskLoss),
    task_weight=64.0,
)
