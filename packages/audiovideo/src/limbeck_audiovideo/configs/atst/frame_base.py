# ATST-Frame base on AudioSet-2M, without labels: 6 processes with 144 clips each.
#   torchrun --nproc-per-node 6 -m limbeck_core train audiovideo/atst/frame_base --launcher pytorch --data-root D
#   limbeck train audiovideo/atst/frame_base --data-root D        (one process: scale lr with the batch)
from mmengine.config import read_base
from mmengine.optim import CosineAnnealingLR, CosineAnnealingParamScheduler, LinearLR

from limbeck_audiovideo.atst import ATST, ATSTDistiller, KeywordCall, SwapViews, atst_frame_base, frame_views
from limbeck_core import EMATeacher, Match, Tap
from limbeck_core.losses import NormalizedMSELoss
from limbeck_core.schedules import Cosine

with read_base():
    from .._base_.audioset_pretraining import *

train_dataloader.batch_size = 144
train_dataloader.dataset.seconds = 10.0
train_dataloader.collate_fn = dict(type=frame_views)
train_cfg.max_steps = 398000
optim_wrapper.optimizer.lr = 0.00027  # 8e-5 for 256 clips
param_scheduler = [
    dict(type=LinearLR, start_factor=1e-6, by_epoch=False, begin=0, end=19900),
    dict(type=CosineAnnealingLR, T_max=378100, eta_min=1e-6, by_epoch=False, begin=19900, end=398000),
    dict(
        type=CosineAnnealingParamScheduler,
        param_name="weight_decay",
        T_max=398000,
        eta_min_ratio=10.0,  # what does not decay keeps a weight decay of 0
        by_epoch=False,
        begin=0,
        end=398000,
    ),
]
sync_bn = "torch"
model = dict(
    type=ATSTDistiller,
    student=dict(type=ATST, encoder=dict(type=atst_frame_base)),
    teacher=dict(
        type=EMATeacher,
        momentum=dict(type=Cosine, start=0.9996, end=1.0),
        mode="batch_stats",
        buffers="own",
        follows="network",
    ),
    matches=dict(
        views=dict(
            type=Match,
            loss=dict(type=NormalizedMSELoss),
            student="predictor",
            teacher=dict(type=Tap, path="projector"),
            teacher_adapter=dict(type=SwapViews),
        ),
    ),
    call=dict(type=KeywordCall),
)
