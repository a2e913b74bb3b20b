# ATST-Clip base, pretrained, fine-tuned on AudioSet-20K: the teacher of C2F.
#   limbeck train audiovideo/atst/clip_as20k --data-root D
#   limbeck test audiovideo/atst/clip_as20k --data-root D --checkpoint work_dirs/clip_as20k/best_map.pth
from mmengine.config import read_base
from torch.nn import BCEWithLogitsLoss

from limbeck_audiovideo.atst import ClipTagger, KeywordCall, atst_clip_base, pretrained_encoder
from limbeck_core import Distiller

with read_base():
    from .._base_.as20k import *

model = dict(
    type=Distiller,
    student=dict(
        type=ClipTagger,
        encoder=dict(
            type=pretrained_encoder,
            encoder=dict(type=atst_clip_base),
            checkpoint="work_dirs/clip_base/teacher.pth",
        ),
        classes=527,
    ),
    task_loss=dict(type=BCEWithLogitsLoss),
    call=dict(type=KeywordCall),
)
