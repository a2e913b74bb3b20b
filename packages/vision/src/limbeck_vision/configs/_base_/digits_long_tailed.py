# Digits with a long tail of classes: 132 images of 0 down to 2 of 9. 200 balanced training images are held out to
# choose settings by; 297 balanced test images. The counts are those of the data set below.
from mmengine.optim import CosineAnnealingLR

from limbeck_core.engine import EpochLoop, held_out_part
from limbeck_vision.data import Digits, LongTailed, small_shifts
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.predictor import ImagePredictor

class_counts = [132, 88, 57, 36, 23, 15, 10, 6, 4, 2]
train_dataloader = dict(
    dataset=dict(
        type=LongTailed,
        dataset=dict(
            type=held_out_part,
            dataset=dict(type=Digits, train=True, channels=3, train_size=1500, transform=dict(type=small_shifts)),
            count=200,
            held_out=False,
        ),
        imbalance=50.0,
    ),
    batch_size=64,
)
val_dataloader = dict(
    dataset=dict(
        type=held_out_part, dataset=dict(type=Digits, train=True, channels=3, train_size=1500), count=200, held_out=True
    ),
    batch_size=256,
)
val_evaluator = dict(type=ClassificationMetric, train_counts=class_counts)
val_cfg = dict()
test_dataloader = dict(dataset=dict(type=Digits, train=False, channels=3, train_size=1500), batch_size=256)
test_evaluator = dict(type=ClassificationMetric, train_counts=class_counts)
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=30, val_interval=30)
param_scheduler = dict(type=CosineAnnealingLR, T_max=30, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
default_hooks = dict(checkpoint=dict(every_epochs=None))
predictor = dict(type=ImagePredictor, size=8)
