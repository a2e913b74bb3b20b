# CIFAR-10 in torchvision's file layout: ROOT/cifar-10-batches-py/; ROOT is --data-root or LIMBECK_DATA.
from limbeck_vision.data import CIFAR10, crop_and_flip
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.predictor import ImagePredictor

train_dataloader = dict(
    dataset=dict(type=CIFAR10, root=".", train=True, transform=dict(type=crop_and_flip)),
    batch_size=128,
    num_workers=2,
)
val_dataloader = dict(dataset=dict(type=CIFAR10, root=".", train=False), batch_size=256, num_workers=2)
val_evaluator = dict(type=ClassificationMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
predictor = dict(type=ImagePredictor, size=32)
