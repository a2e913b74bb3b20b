# PointPillars for KITTI at a quarter of the width, 0.3 M parameters, with PointDistiller:
# the authors' N, K and temperature.
#   limbeck train detection/pointpillars/pointpillars_kitti --data-root KITTI
#   limbeck train detection/pointdistiller/pointpillars_16x_kitti --data-root KITTI
#   python tools/eval_kitti.py --config detection/pointdistiller/pointpillars_16x_kitti --data-root KITTI \
#       --checkpoint work_dirs/pointpillars_16x_kitti/student.pth
# A checkpoint of mmdet3d teaches as well: --cfg-options model.teacher.checkpoint=FILE
from mmengine.config import read_base

from limbeck_core import Distiller, pretrained
from limbeck_detection.pointdistiller import voxel_match
from limbeck_detection.pointpillars import LidarCall, pointpillars, pointpillars_16x

with read_base():
    from .._base_.epochs_160_one_cycle import *
    from .._base_.kitti import *

model = dict(
    type=Distiller,
    student=dict(type=pointpillars_16x, point_range=point_range),
    teacher=dict(
        type=pretrained,
        model=dict(type=pointpillars, point_range=point_range),
        checkpoint="work_dirs/pointpillars_kitti/student.pth",
    ),
    call=dict(type=LidarCall),
    matches=dict(
        local=dict(
            type=voxel_match,
            student_channels=16,
            teacher_channels=64,
            centers=12000,
            neighbors=128,
            temperature=1e-4,
            weight=2.0,
        ),
    ),
)
