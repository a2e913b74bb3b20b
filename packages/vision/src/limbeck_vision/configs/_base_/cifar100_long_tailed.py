# CIFAR-100 with a long tail of classes, 500 images down to 5, and the counts of that data set.
# ROOT/cifar-100-python/{train,test,meta}; ROOT is --data-root or LIMBECK_DATA.
from limbeck_vision.data import CIFAR100, LongTailed
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.methods.mdcs import weak_cifar
from limbeck_vision.predictor import ImagePredictor

# fmt: off
class_counts = [
    500, 477, 455, 434, 415, 396, 378, 361, 344, 328, 314, 299, 286, 273, 260, 248, 237, 226, 216, 206, 197, 188,
    179, 171, 163, 156, 149, 142, 135, 129, 123, 118, 112, 107, 102, 98, 93, 89, 85, 81, 77, 74, 70, 67, 64, 61, 58,
    56, 53, 51, 48, 46, 44, 42, 40, 38, 36, 35, 33, 32, 30, 29, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15,
    15, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9, 8, 8, 7, 7, 7, 6, 6, 6, 6, 5, 5, 5, 5,
]
# fmt: on
train_dataloader = dict(
    dataset=dict(
        type=LongTailed,
        dataset=dict(type=CIFAR100, root=".", train=True, transform=dict(type=weak_cifar)),
        imbalance=100.0,
    ),
    batch_size=64,
    num_workers=2,
)
val_dataloader = dict(dataset=dict(type=CIFAR100, root=".", train=False), batch_size=256, num_workers=2)
val_evaluator = dict(type=ClassificationMetric, train_counts=class_counts)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
predictor = dict(type=ImagePredictor, size=32)
