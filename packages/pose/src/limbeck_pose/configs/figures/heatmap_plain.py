# A heatmap student of the drawn figures by its sparse labels alone.
#   python -m limbeck_pose.rendered figures
#   limbeck train pose/figures/heatmap_plain --data-root figures
#   limbeck test pose/figures/heatmap_plain --data-root figures --checkpoint work_dirs/heatmap_plain/student.pth
from mmengine.config import read_base

from limbeck_core import Distiller
from limbeck_pose.figures import FigureHeatmaps
from limbeck_pose.heatmap import Heatmap, HeatmapTaskLoss

with read_base():
    from .._base_.figures import *

codec = dict(type=Heatmap, input_size=(64, 64), sigma=1.0)
train_dataloader.dataset.codec = codec
val_dataloader.dataset.codec = codec
val_evaluator.codec = codec
test_dataloader = val_dataloader
test_evaluator = val_evaluator
predictor.codec = codec
model = dict(
    type=Distiller,
    student=dict(type=FigureHeatmaps, width=16),
    task_loss=dict(type=HeatmapTaskLoss),
    task_weight=1000.0,
)
