# The first stage of PointRCNN for KITTI at the width divided by 2.8, without a teacher.
#   limbeck train detection/pointrcnn/pointrcnn_8x_kitti --data-root KITTI
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_detection.pointpillars import LidarCall
from limbeck_detection.pointrcnn import pointrcnn

with read_base():
    from .._base_.epochs_160_one_cycle import *
    from .._base_.kitti import *

model = dict(type=Distiller, student=dict(type=pointrcnn, ratio=2.8), call=dict(type=LidarCall))
train_dataloader["batch_size"] = 2
train_dataloader["dataset"]["transforms"][4]["point_range"] = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)
optim_wrapper["optimizer"] = dict(type=AdamW, lr=1e-3, betas=(0.95, 0.85), weight_decay=0.01)
