# The 1797 real 8x8 digits that scikit-learn ships: 1200 to train on, 597 to test on; seconds an epoch on a CPU.
from mmengine.optim import CosineAnnealingLR
from torch.optim import SGD

from limbeck_core.engine import EpochLoop
from limbeck_vision.data import Digits, small_shifts
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.predictor import ImagePredictor

train_dataloader = dict(
    dataset=dict(type=Digits, train=True, channels=3, transform=dict(type=small_shifts)),
    batch_size=64,
)
val_dataloader = dict(dataset=dict(type=Digits, train=False, channels=3), batch_size=256)
val_evaluator = dict(type=ClassificationMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=15)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True))
param_scheduler = dict(type=CosineAnnealingLR, T_max=15, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
predictor = dict(type=ImagePredictor, size=8)
