# PointDistiller between the points of two PointRCNNs (first stages): full width teaches the width divided by 2.8.
#   limbeck train detection/pointrcnn/pointrcnn_8x_distilled_kitti --data-root KITTI
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, pretrained
from limbeck_detection.pointdistiller import PointDistillationLoss
from limbeck_detection.pointpillars import LidarCall
from limbeck_detection.pointrcnn import pointrcnn

with read_base():
    from .._base_.epochs_160_one_cycle import *
    from .._base_.kitti import *

model = dict(
    type=Distiller,
    student=dict(type=pointrcnn, ratio=2.8),
    teacher=dict(type=pretrained, model=dict(type=pointrcnn), checkpoint="work_dirs/pointrcnn_kitti/student.pth"),
    call=dict(type=LidarCall),
    matches=dict(
        points=dict(
            type=Match,
            loss=dict(type=PointDistillationLoss, student_channels=45, teacher_channels=128),
            student="neck",
            teacher="neck",
            weight=2.0,
        )
    ),
)
train_dataloader["batch_size"] = 2
train_dataloader["dataset"]["transforms"][4]["point_range"] = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)
optim_wrapper["optimizer"] = dict(type=AdamW, lr=1e-3, betas=(0.95, 0.85), weight_decay=0.01)
