# ATST-Clip on rendered sounds, without labels: two crops of 1 s of each clip. Its encoder is in teacher.pth.
#   python -m limbeck_audiovideo.rendered_audio sounds
#   limbeck train audiovideo/atst/sounds_clip --data-root sounds
#   python tools/eval_audiovideo.py probe --encoder clip-tiny --weights work_dirs/sounds_clip/teacher.pth ...
from mmengine.config import read_base

from limbeck_audiovideo.atst import ATST, ATSTDistiller, ClipEncoder, KeywordCall, SwapViews, clip_views
from limbeck_audiovideo.audio import Recordings
from limbeck_core import EMATeacher, Match, Tap
from limbeck_core.losses import NormalizedMSELoss
from limbeck_core.schedules import Cosine

with read_base():
    from .._base_.pretraining_sounds import *

train_dataloader = dict(
    dataset=dict(
        type=Recordings,
        root=".",
        audio="clips/train",
        table="train.csv",
        labelled=False,
        seconds=1.0,
        crops=2,
        random=True,
    ),
    batch_size=32,
    drop_last=True,
    collate_fn=dict(type=clip_views),
)
model = dict(
    type=ATSTDistiller,
    student=dict(
        type=ATST,
        encoder=dict(type=ClipEncoder, dim=64, depth=3, heads=2, max_frames=201),
        hidden=256,
        out=64,
    ),
    teacher=dict(
        type=EMATeacher,
        momentum=dict(type=Cosine, start=0.99, end=1.0),
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
