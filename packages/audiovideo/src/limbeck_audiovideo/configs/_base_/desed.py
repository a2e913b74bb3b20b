# DESED as DCASE task 4 lays it out: synthetic recordings with strong labels, real ones with weak labels, validation.
from mmengine.optim import CosineAnnealingLR
from torch.optim import SGD

from limbeck_audiovideo.atst import LayerDecay
from limbeck_audiovideo.audio import SoundEvents, joined_events
from limbeck_audiovideo.evaluation.metric import EventMetric
from limbeck_core.engine import EpochLoop

classes = (
    "Alarm_bell_ringing",
    "Blender",
    "Cat",
    "Dishes",
    "Dog",
    "Electric_shaver_toothbrush",
    "Frying",
    "Running_water",
    "Speech",
    "Vacuum_cleaner",
)
synthetic = dict(
    type=SoundEvents,
    root="desed",
    audio="audio/train/synthetic21_train/soundscapes",
    strong="metadata/train/synthetic21_train/soundscapes.tsv",
    classes=classes,
)
weak = dict(type=SoundEvents, root="desed", audio="audio/train/weak", weak="metadata/train/weak.tsv", classes=classes)
train_dataloader = dict(dataset=dict(type=joined_events, parts=[synthetic, weak]), batch_size=256, num_workers=12)
val_dataloader = dict(
    dataset=dict(
        type=SoundEvents,
        root="desed",
        audio="audio/validation/validation",
        strong="metadata/validation/validation.tsv",
        classes=classes,
    ),
    batch_size=64,
    num_workers=12,
)
val_evaluator = dict(type=EventMetric, classes=classes, thresholds=50)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=100, val_interval=10)
optim_wrapper = dict(
    optimizer=dict(type=SGD, lr=0.1, momentum=0.9),
    constructor=LayerDecay,
    paramwise_cfg=dict(decay=0.75),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = dict(type=CosineAnnealingLR, T_max=100, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
