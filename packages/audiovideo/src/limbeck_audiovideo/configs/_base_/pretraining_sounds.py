# The recipe of ATST's pretraining at the size of rendered sounds: 300 steps of 32 clips.
from mmengine.optim import CosineAnnealingLR, CosineAnnealingParamScheduler, LinearLR
from torch.optim import AdamW

from limbeck_core.engine import StepLoop

train_cfg = dict(type=StepLoop, max_steps=300)
optim_wrapper = dict(
    optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.04),
    paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type=CosineAnnealingLR, T_max=280, eta_min=1e-6, by_epoch=False, begin=20, end=300),
    dict(
        type=CosineAnnealingParamScheduler,
        param_name="weight_decay",
        T_max=300,
        eta_min_ratio=10.0,  # what does not decay keeps a weight decay of 0
        by_epoch=False,
        begin=0,
        end=300,
    ),
]
