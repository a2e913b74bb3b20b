# DWPose's second stage: 60 epochs, about a fifth of the first; the same optimiser, cosine over the second half.
from mmengine.optim import CosineAnnealingLR, LinearLR
from torch.optim import AdamW

from limbeck_core.engine import EMAHook, EpochLoop

train_cfg = dict(type=EpochLoop, max_epochs=60, val_interval=10)
optim_wrapper = dict(
    optimizer=dict(type=AdamW, lr=4e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(type=CosineAnnealingLR, eta_min=2e-4, begin=30, end=60, T_max=30, by_epoch=True, convert_to_iter_based=True),
]
custom_hooks = [dict(type=EMAHook, momentum=0.9998)]
default_hooks = dict(checkpoint=dict(save_best="whole/AP", rule="greater"))
