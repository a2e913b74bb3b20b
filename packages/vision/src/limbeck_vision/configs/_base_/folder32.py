# Colour images of 32x32 in ROOT/train/CLASS and ROOT/test/CLASS, ten classes; ROOT is --data-root or LIMBECK_DATA.
# A small set in mind, such as some hundred images of each class of CIFAR-10: minutes a run on a CPU.
from mmengine.optim import CosineAnnealingLR

from limbeck_core.engine import EpochLoop
from limbeck_vision.data import ImageFolder, crop_and_flip
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.predictor import ImagePredictor

train_dataloader = dict(dataset=dict(type=ImageFolder, root="train", transform=dict(type=crop_and_flip)), batch_size=64)
val_dataloader = dict(dataset=dict(type=ImageFolder, root="test"), batch_size=256)
val_evaluator = dict(type=ClassificationMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=12, val_interval=3)
param_scheduler = dict(type=CosineAnnealingLR, T_max=12, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
predictor = dict(type=ImagePredictor, size=32)
