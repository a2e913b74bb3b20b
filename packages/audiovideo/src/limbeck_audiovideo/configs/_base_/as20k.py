# Fine-tuning on the balanced part of AudioSet, 527 classes: mixed and resized, layer-wise learning rates, 200 epochs.
from mmengine.optim import CosineAnnealingLR, LinearLR
from torch.optim import SGD

from limbeck_audiovideo.atst import LayerDecay, tagging_views
from limbeck_audiovideo.audio import Recordings
from limbeck_audiovideo.evaluation.metric import ClipMetric
from limbeck_core.engine import EpochLoop

train_dataloader = dict(
    dataset=dict(
        type=Recordings,
        root="audioset",
        audio="balanced_train",
        table="balanced_train.csv",
        columns=dict(separator=","),
        several=True,
        seconds=10.0,
    ),
    batch_size=512,
    num_workers=12,
    collate_fn=dict(type=tagging_views),
)
val_dataloader = dict(
    dataset=dict(
        type=Recordings,
        root="audioset",
        audio="eval",
        table="eval.csv",
        columns=dict(separator=","),
        several=True,
        seconds=10.0,
    ),
    batch_size=128,
    num_workers=12,
)
val_evaluator = dict(type=ClipMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=200, val_interval=10)
optim_wrapper = dict(
    optimizer=dict(type=SGD, lr=2.0, momentum=0.9),  # 1.0 for 256 clips
    constructor=LayerDecay,
    paramwise_cfg=dict(decay=0.75),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type=CosineAnnealingLR, T_max=195, eta_min=0.0, by_epoch=True, begin=5, end=200, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(save_best="map", rule="greater"))
