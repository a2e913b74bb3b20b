# EchoNet-Dynamic, normal hearts alone (EF of 50 to 70 %): ROOT/FileList.csv and ROOT/Videos/*.avi, 112 x 112 pixels.
# Clips of 64 frames, every third at 50 frames a second; ROOT is --data-root or LIMBECK_DATA.
from mmengine.optim import CosineAnnealingLR, LinearLR
from torch.optim import AdamW

from limbeck_audiovideo.evaluation.split_probes import SplitProbes
from limbeck_audiovideo.video import CentreCrop, Clip, MultiScaleCrop, Videos
from limbeck_core.engine import EpochLoop

train_dataloader = dict(
    dataset=dict(
        type=Videos,
        root=".",
        table="FileList.csv",
        file_column="FileName",
        videos="Videos",
        where=dict(Split="TRAIN", EF=(50.0, 70.0)),
        clip=dict(type=Clip, length=64, spacing=0.06, start="random"),
        crop=dict(type=MultiScaleCrop, size=112),
    ),
    batch_size=16,
    num_workers=8,
    drop_last=True,
)
val_dataloader = dict(
    dataset=dict(
        type=Videos,
        root=".",
        table="FileList.csv",
        file_column="FileName",
        videos="Videos",
        labels="EF",
        classes_from=dict(EF=50.0),
        split_column="Split",
        clip=dict(type=Clip, length=64, spacing=0.06, start="middle"),
        crop=dict(type=CentreCrop, size=112),
    ),
    batch_size=16,
    num_workers=8,
)
val_evaluator = dict(type=SplitProbes)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
# learning rates for a total batch of 16: 1.5e-4, and 1e-4 for the ends of the schedule, times 16 / 256
train_cfg = dict(type=EpochLoop, max_epochs=400, val_interval=40)
optim_wrapper = dict(
    optimizer=dict(type=AdamW, lr=1.5e-4 * 16 / 256, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=2 / 3, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(
        type=CosineAnnealingLR,
        eta_min=1e-4 * 16 / 256,
        begin=40,
        end=400,
        T_max=360,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
