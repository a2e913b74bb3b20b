# 200 of the training digits to learn from, the other 1000 to choose settings by; 597 test images. Labels are right.
from mmengine.optim import CosineAnnealingLR

from limbeck_core.engine import EpochLoop, held_out_part
from limbeck_vision.data import Digits, small_shifts
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.predictor import ImagePredictor

train_dataloader = dict(
    dataset=dict(
        type=held_out_part,
        dataset=dict(type=Digits, train=True, channels=3, transform=dict(type=small_shifts)),
        count=200,
        held_out=True,
    ),
    batch_size=64,
)
val_dataloader = dict(
    dataset=dict(type=held_out_part, dataset=dict(type=Digits, train=True, channels=3), count=200, held_out=False),
    batch_size=256,
)
val_evaluator = dict(type=ClassificationMetric)
val_cfg = dict()
test_dataloader = dict(dataset=dict(type=Digits, train=False, channels=3), batch_size=256)
test_evaluator = dict(type=ClassificationMetric)
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=60, val_interval=60)
param_scheduler = dict(type=CosineAnnealingLR, T_max=60, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
default_hooks = dict(checkpoint=dict(every_epochs=None))
predictor = dict(type=ImagePredictor, size=8)
