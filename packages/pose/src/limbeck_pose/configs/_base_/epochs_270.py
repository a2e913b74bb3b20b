# RTMPose's recipe for a total batch of 512 people: 270 epochs of AdamW, warm-up, constant, cosine over the second half.
# The recipe averages the statistics of batch norm with the weights; the average here copies them.
from mmengine.optim import CosineAnnealingLR, LinearLR
from torch.optim import AdamW

from limbeck_core.engine import EMAHook, EpochLoop

train_cfg = dict(type=EpochLoop, max_epochs=270, val_interval=10)
optim_wrapper = dict(
    optimizer=dict(type=AdamW, lr=4e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(
        type=CosineAnnealingLR, eta_min=2e-4, begin=135, end=270, T_max=135, by_epoch=True, convert_to_iter_based=True
    ),
]
custom_hooks = [dict(type=EMAHook, momentum=0.9998)]
default_hooks = dict(checkpoint=dict(save_best="whole/AP", rule="greater"))
