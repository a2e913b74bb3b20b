# PointPillars for KITTI as its authors size it, 4.8 M parameters: the teacher.
#   limbeck train detection/pointpillars/pointpillars_kitti --data-root KITTI
#   python tools/eval_kitti.py --config detection/pointpillars/pointpillars_kitti --data-root KITTI \
#       --checkpoint work_dirs/pointpillars_kitti/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller
from limbeck_detection.pointpillars import LidarCall, pointpillars

with read_base():
    from .._base_.epochs_160_one_cycle import *
    from .._base_.kitti import *

model = dict(
    type=Distiller,
    student=dict(type=pointpillars, point_range=point_range),
    call=dict(type=LidarCall),
)
