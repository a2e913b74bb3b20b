# COMODO as published on Ego4D: TimeSformer-base (8 frames of 5 s) teaches, windows of 5 s at 200 Hz, queue 16384.
# TEACHER is a folder of TimesformerModel.save_pretrained; pairs.csv lists videos and csv files of the sensor.
#   limbeck bank audiovideo/comodo/ego4d_timesformer --data-root EGO4D --bank BANK \
#       --cfg-options model.teacher.source=TEACHER
#   limbeck train audiovideo/comodo/ego4d_timesformer --data-root EGO4D --bank BANK
from mmengine.optim import LinearLR
from torch.optim import AdamW

from limbeck_audiovideo.comodo import (
    FillQueue,
    IMUTransformer,
    Projection,
    RandomProjection,
    SimilarityQueueLoss,
    VideoTransformer,
)
from limbeck_audiovideo.imu import ClipPairs
from limbeck_core import Distiller, Match
from limbeck_core.engine import EpochLoop

train_dataloader = dict(
    dataset=dict(
        type=ClipPairs,
        root=".",
        table="pairs.csv",
        window=5.0,
        length=1000,
        frames=8,
        size=(224, 224),
        on_problem="drop",
    ),
    batch_size=128,
    num_workers=4,
    drop_last=True,
)
train_cfg = dict(type=EpochLoop, max_epochs=20)
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=3e-4, weight_decay=0.01))
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, begin=0, end=2, by_epoch=True, convert_to_iter_based=True),
    dict(type=LinearLR, start_factor=1.0, end_factor=0.0, begin=2, end=20, by_epoch=True, convert_to_iter_based=True),
]
model = dict(
    type=Distiller,
    student=dict(type=IMUTransformer, length=1000, patch=20, dim=256, depth=6, heads=8),
    teacher=dict(type=VideoTransformer, source=dict(model_type="timesformer", num_frames=8)),
    teacher_view="video",
    matches=dict(
        comodo=dict(
            type=Match,
            loss=dict(type=SimilarityQueueLoss, embedding_dim=128, queue_size=16384),
            student="",
            teacher="",
            adapter=dict(type=Projection, in_dim=256),
            teacher_adapter=dict(type=RandomProjection, in_dim=768),
        ),
    ),
)
custom_hooks = [dict(type=FillQueue, match="comodo")]
