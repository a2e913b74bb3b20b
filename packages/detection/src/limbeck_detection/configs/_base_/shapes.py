# Shapes that the package makes, eight families, 256 points a cloud; nothing to download.
from mmengine.optim import CosineAnnealingLR, LinearLR
from torch.optim import AdamW

from limbeck_core.engine import EpochLoop
from limbeck_detection.dcglr import (
    ClippedOneByOne,
    CloudProbes,
    MultiCrop,
    RestingPrototypes,
    Shapes,
    clouds_batch,
    views_batch,
)

train_dataloader = dict(
    dataset=dict(type=Shapes, part="train", size=320, points=256, transform=dict(type=MultiCrop, local_views=4)),
    batch_size=32,
    drop_last=True,
    collate_fn=dict(type=views_batch),
)
val_dataloader = dict(
    dataset=dict(type=Shapes, part="both", size=320, points=256),
    batch_size=64,
    collate_fn=dict(type=clouds_batch),
)
val_evaluator = dict(type=CloudProbes)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=10, val_interval=10)
optim_wrapper = dict(type=ClippedOneByOne, max_norm=3.0, optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.04))
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type=CosineAnnealingLR, T_max=10, eta_min=1e-5, by_epoch=True, convert_to_iter_based=True),
]
custom_hooks = [dict(type=RestingPrototypes, epochs=1)]
default_hooks = dict(checkpoint=dict(every_epochs=None))
