# PointPillars for KITTI at the width divided by 2.8, 0.6 M parameters, without a teacher.
#   limbeck train detection/pointpillars/pointpillars_8x_kitti --data-root KITTI
#   python tools/eval_kitti.py --config detection/pointpillars/pointpillars_8x_kitti --data-root KITTI \
#       --checkpoint work_dirs/pointpillars_8x_kitti/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller
from limbeck_detection.pointpillars import LidarCall, pointpillars_8x

with read_base():
    from .._base_.epochs_160_one_cycle import *
    from .._base_.kitti import *

model = dict(
    type=Distiller,
    student=dict(type=pointpillars_8x, point_range=point_range),
    call=dict(type=LidarCall),
)
