# MSD Task04_Hippocampus, or any data set of its kind, such as the one that the quickstart renders: two structures of a
# few millimetres in volumes of about 36 mm. ROOT (--data-root or LIMBECK_DATA) is the folder with dataset.json, or with
# images/ and labels/. 65 : 12 : 23 are the shares of training, validation and test cases of the DSD paper.
from mmengine.optim import CosineAnnealingLR

from limbeck_core.engine import EpochLoop
from limbeck_medical.data import SegmentationDataset, random_crops, volume_preprocessing
from limbeck_medical.evaluation import SegmentationMetric
from limbeck_medical.predictor import VolumePredictor

_preprocess = dict(type=volume_preprocessing, spacing=(1.0, 1.0, 1.0), intensity="unit", channels=1)
_dataset = dict(type=SegmentationDataset, root=".", preprocess=_preprocess, cache="memory")

train_dataloader = dict(
    dataset=dict(
        **_dataset,
        part="train",
        augment=dict(type=random_crops, size=(32, 32, 32), positive=1.0, negative=0.1, flips=0.5),
    ),
    batch_size=4,
)
val_dataloader = dict(dataset=dict(**_dataset, part="val"), batch_size=1)
val_evaluator = dict(type=SegmentationMetric, classes=3, distances=False)
val_cfg = dict()
test_dataloader = dict(dataset=dict(**_dataset, part="test"), batch_size=1)
test_evaluator = dict(type=SegmentationMetric, classes=3)
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=30, val_interval=10)
param_scheduler = dict(type=CosineAnnealingLR, T_max=30, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
predictor = dict(type=VolumePredictor, preprocess=_preprocess)
