# The student of the drawn figures by its sparse labels alone.
#   python -m limbeck_pose.rendered figures
#   limbeck train pose/figures/plain --data-root figures
#   limbeck test pose/figures/plain --data-root figures --checkpoint work_dirs/plain/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller
from limbeck_pose.dwpose import SimCCTaskLoss
from limbeck_pose.figures import FigurePose

with read_base():
    from .._base_.figures import *

model = dict(
    type=Distiller,
    student=dict(type=FigurePose, width=16),
    task_loss=dict(type=SimCCTaskLoss),
    task_weight=64.0,
)
