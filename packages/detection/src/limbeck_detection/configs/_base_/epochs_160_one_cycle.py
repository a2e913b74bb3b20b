# mmdet3d's recipe of PointPillars for KITTI, for 8 times 6 scenes a step: over 64 of 160 epochs the learning rate rises
# tenfold, then it falls to a ten-thousandth; the momentum of AdamW goes the other way.
from mmengine.optim import CosineAnnealingLR, CosineAnnealingMomentum
from torch.optim import AdamW

from limbeck_core.engine import EpochLoop

train_cfg = dict(type=EpochLoop, max_epochs=160, val_interval=2)
optim_wrapper = dict(
    optimizer=dict(type=AdamW, lr=1e-3, betas=(0.95, 0.99), weight_decay=0.01), clip_grad=dict(max_norm=35.0)
)
param_scheduler = [
    dict(type=CosineAnnealingLR, T_max=64, eta_min=1e-2, begin=0, end=64, by_epoch=True, convert_to_iter_based=True),
    dict(type=CosineAnnealingLR, T_max=96, eta_min=1e-7, begin=64, end=160, by_epoch=True, convert_to_iter_based=True),
    dict(
        type=CosineAnnealingMomentum,
        T_max=64,
        eta_min=0.85,
        begin=0,
        end=64,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type=CosineAnnealingMomentum,
        T_max=96,
        eta_min=0.95,
        begin=64,
        end=160,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
