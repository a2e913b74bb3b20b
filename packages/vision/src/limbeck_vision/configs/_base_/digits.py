# The 1797 real 8x8 digits that scikit-learn ships: 1200 to train on, 597 to test on; seconds a run on a CPU.
# 40 % of the training images bear a wrong label, the same ones for every model; test labels are as they are.
from mmengine.optim import CosineAnnealingLR

from limbeck_core.engine import EpochLoop
from limbeck_vision.data import Digits, small_shifts
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.predictor import ImagePredictor

train_dataloader = dict(
    dataset=dict(type=Digits, train=True, channels=3, label_noise=0.4, transform=dict(type=small_shifts)),
    batch_size=64,
)
val_dataloader = dict(dataset=dict(type=Digits, train=False, channels=3), batch_size=256)
val_evaluator = dict(type=ClassificationMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=20)
param_scheduler = dict(type=CosineAnnealingLR, T_max=20, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
predictor = dict(type=ImagePredictor, size=8)
