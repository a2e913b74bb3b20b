# Fine-tuning on the five labelled clips of each class of rendered sounds: mixed and resized, 150 steps.
from mmengine.optim import CosineAnnealingLR
from torch.optim import AdamW

from limbeck_audiovideo.atst import tagging_views
from limbeck_audiovideo.audio import Recordings
from limbeck_core.engine import StepLoop

train_dataloader = dict(
    dataset=dict(type=Recordings, root=".", audio="clips/train", table="few.csv", several=True, seconds=2.0),
    batch_size=20,
    collate_fn=dict(type=tagging_views),
)
train_cfg = dict(type=StepLoop, max_steps=150)
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.05))
param_scheduler = dict(type=CosineAnnealingLR, T_max=150, eta_min=0.0, by_epoch=False)
