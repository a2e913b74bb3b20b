# Beating chambers that the package draws, in EchoNet-Dynamic's layout: clips of 8 frames of 32 x 32 grey pixels.
#   python -m limbeck_audiovideo.rendered_video hearts        (then --data-root hearts)
from mmengine.optim import CosineAnnealingLR, LinearLR
from torch.optim import AdamW

from limbeck_audiovideo.evaluation.split_probes import SplitProbes
from limbeck_audiovideo.video import Clip, MultiScaleCrop, Videos
from limbeck_core.engine import EpochLoop

train_dataloader = dict(
    dataset=dict(
        type=Videos,
        root=".",
        table="FileList.csv",
        file_column="FileName",
        videos="Videos",
        where=dict(Split="TRAIN"),
        clip=dict(type=Clip, length=8, spacing=0.04, start="random"),
        crop=dict(type=MultiScaleCrop, size=32, scales=(1.0, 0.875)),
        grey=True,
    ),
    batch_size=16,
    drop_last=True,
)
val_dataloader = dict(
    dataset=dict(
        type=Videos,
        root=".",
        table="FileList.csv",
        file_column="FileName",
        videos="Videos",
        labels=("motion", "shape"),
        split_column="Split",
        clip=dict(type=Clip, length=8, spacing=0.04, start="middle"),
        grey=True,
    ),
    batch_size=64,
)
val_evaluator = dict(type=SplitProbes)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=8, val_interval=8)
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05))
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, by_epoch=False, begin=0, end=32),
    dict(type=CosineAnnealingLR, T_max=8, eta_min=0.0, by_epoch=True, convert_to_iter_based=True),
]
