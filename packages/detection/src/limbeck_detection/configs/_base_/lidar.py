# Simulated lidar frames in KITTI's layout, a small range before the sensor, and a short schedule:
#   python -m limbeck_detection.lidar frames --train 160 --val 60 --columns 512 --front --reach 30
#   (then --data-root frames)
from mmengine.optim import CosineAnnealingLR, LinearLR
from torch.optim import AdamW

from limbeck_core.engine import StepLoop
from limbeck_detection.data import FlipScene, KeepInRange, KittiFrames, ScaleScene, ShufflePoints, lidar_batch
from limbeck_detection.evaluation import KittiMetric

point_range = (0.0, -15.36, -3.0, 30.72, 15.36, 1.0)
train_dataloader = dict(
    dataset=dict(
        type=KittiFrames,
        root=".",
        split="train",
        transforms=[
            dict(type=FlipScene),
            dict(type=ScaleScene),
            dict(type=KeepInRange, point_range=point_range),
            dict(type=ShufflePoints),
        ],
    ),
    batch_size=4,
    collate_fn=dict(type=lidar_batch),
)
val_dataloader = dict(
    dataset=dict(type=KittiFrames, root=".", split="val", truth=True),
    batch_size=4,
    collate_fn=dict(type=lidar_batch),
)
val_evaluator = dict(type=KittiMetric, overlaps="loose", judged_range=(0.0, -15.36, -3.0, 30.72, 15.36, 0.0))
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=StepLoop, max_steps=160, val_interval=160)
optim_wrapper = dict(
    optimizer=dict(type=AdamW, lr=4e-3, betas=(0.95, 0.99), weight_decay=0.01), clip_grad=dict(max_norm=35.0)
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.1, end=40, by_epoch=False),
    dict(type=CosineAnnealingLR, T_max=120, eta_min=1e-5, begin=40, end=160, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(every_epochs=None))
