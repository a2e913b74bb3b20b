# Pictures and binary masks (0 and 255) of six modalities, files of the same names in ROOT/<modality>/images and
# ROOT/<modality>/masks; ROOT is --data-root or LIMBECK_DATA. 65 : 12 : 23 are for training, validation and testing.
from limbeck_medical.esp_medsam import MODALITIES, MultiModalDataset, random_flip, square_pictures
from limbeck_medical.evaluation import SegmentationMetric

_dataset = dict(
    type=MultiModalDataset, root=".", modalities=MODALITIES, preprocess=dict(type=square_pictures, size=1024)
)

train_dataloader = dict(
    dataset=dict(**_dataset, part="train", augment=dict(type=random_flip, probability=0.1)), batch_size=4, num_workers=4
)
val_dataloader = dict(dataset=dict(**_dataset, part="val"), batch_size=4, num_workers=4)
val_evaluator = dict(type=SegmentationMetric, classes=2, distances=False)
val_cfg = dict()
test_dataloader = dict(dataset=dict(**_dataset, part="test"), batch_size=4, num_workers=4)
test_evaluator = dict(type=SegmentationMetric, classes=2)
test_cfg = dict()
