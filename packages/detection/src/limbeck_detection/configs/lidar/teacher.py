# A small PointPillars on simulated frames: the teacher.
#   python -m limbeck_detection.lidar frames --train 160 --val 60 --columns 512 --front --reach 30
#   limbeck train detection/lidar/teacher --data-root frames
#   limbeck test detection/lidar/teacher --data-root frames --checkpoint work_dirs/teacher/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller
from limbeck_detection.pointpillars import LidarCall
from limbeck_detection.simulated import small_pointpillars

with read_base():
    from .._base_.lidar import *

model = dict(
    type=Distiller,
    student=dict(type=small_pointpillars, width=16),
    call=dict(type=LidarCall),
)
