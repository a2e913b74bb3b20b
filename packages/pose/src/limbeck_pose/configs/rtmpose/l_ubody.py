# RTMPose-l with 133 key points on COCO-WholeBody and UBody, without a teacher; the teacher of DWPose is such a model.
#   limbeck train pose/rtmpose/l_ubody --data-root DATA
#   limbeck test pose/rtmpose/l_ubody --data-root DATA --checkpoint work_dirs/l_ubody/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller
from limbeck_pose.dwpose import SimCCTaskLoss
from limbeck_pose.rtmpose import rtmpose_l

with read_base():
    from .._base_.coco_ubody import *
    from .._base_.epochs_270 import *

model = dict(
    type=Distiller,
    student=dict(type=rtmpose_l),
    task_loss=dict(type=SimCCTaskLoss),
    task_weight=64.0,  # the recipe sums over 64 people a process
)
