# The control of detection/lidar/distilled: the neighbours of all centres change places at random.
#   python -m limbeck_detection.lidar frames --train 160 --val 60 --columns 512 --front --reach 30
#   limbeck train detection/lidar/teacher --data-root frames
#   limbeck train detection/lidar/shuffled --data-root frames
#   limbeck test detection/lidar/shuffled --data-root frames --checkpoint work_dirs/shuffled/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller, pretrained
from limbeck_detection.pointdistiller import ShuffledVoxelDistillationLoss, voxel_match
from limbeck_detection.pointpillars import LidarCall
from limbeck_detection.simulated import small_pointpillars

with read_base():
    from .._base_.lidar import *

model = dict(
    type=Distiller,
    student=dict(type=small_pointpillars, width=8),
    teacher=dict(
        type=pretrained,
        model=dict(type=small_pointpillars, width=16),
        checkpoint="work_dirs/teacher/student.pth",
    ),
    call=dict(type=LidarCall),
    matches=dict(
        local=dict(
            type=voxel_match,
            loss=ShuffledVoxelDistillationLoss,
            student_channels=8,
            teacher_channels=16,
            centers=512,
            neighbors=16,
            weight=2.0,
        ),
    ),
)
