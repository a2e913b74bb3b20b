# Rendered pairs of video and wrist sensor: 200 samples of 4 s at 50 Hz, 16 frames of 48 x 48.
#   python -m limbeck_audiovideo.rendered_pairs pairs        (then --data-root pairs)
from mmengine.optim import CosineAnnealingLR, LinearLR
from torch.optim import AdamW

from limbeck_audiovideo.evaluation import SubjectProbe
from limbeck_audiovideo.imu import ClipPairs
from limbeck_core.engine import EpochLoop

train_dataloader = dict(
    dataset=dict(type=ClipPairs, root=".", table="pairs.csv", length=200, frames=16, size=(48, 48), keep_video=True),
    batch_size=64,
    drop_last=True,
)
val_dataloader = dict(
    dataset=dict(type=ClipPairs, root=".", table="test.csv", length=200, frames=16, size=(48, 48), keep_video=True),
    batch_size=72,
)
val_evaluator = dict(type=SubjectProbe)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=60, val_interval=60)
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.01))
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, by_epoch=False, begin=0, end=18),
    dict(type=CosineAnnealingLR, T_max=60, eta_min=0.0, by_epoch=True, convert_to_iter_based=True),
]
