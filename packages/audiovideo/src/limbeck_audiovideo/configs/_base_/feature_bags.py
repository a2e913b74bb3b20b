# Bags of XD-Violence: I3D RGB (5 crops a video) and VGGish features, 50 epochs of Adam; the visual peer at a fifth.
from mmengine.optim import CosineAnnealingLR
from torch.optim import Adam

from limbeck_audiovideo.macil_sd import FeatureBags, FrameAP
from limbeck_core.engine import EpochLoop

train_dataloader = dict(
    dataset=dict(type=FeatureBags, root=".", visual="rgb.list", audio="audio.list"),
    batch_size=128,
    num_workers=4,
)
val_dataloader = dict(
    dataset=dict(
        type=FeatureBags, root=".", visual="rgbtest.list", audio="audiotest.list", snippets=None, truth="gt.npy"
    ),
    batch_size=1,
)
val_evaluator = dict(type=FrameAP)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=50, val_interval=50)
optim_wrapper = dict(
    optimizer=dict(type=Adam, lr=4e-4),
    paramwise_cfg=dict(custom_keys={"student.v.": dict(lr_mult=0.2)}),
)
param_scheduler = dict(type=CosineAnnealingLR, T_max=60, by_epoch=True)
