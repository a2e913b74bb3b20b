# Sound event detection on DESED: ATST-Frame base on synthetic recordings with strong labels and real ones with weak.
#   limbeck train audiovideo/atst/frame_desed --data-root D
#   limbeck test audiovideo/atst/frame_desed --data-root D --checkpoint work_dirs/frame_desed/student.pth
from mmengine.config import read_base

from limbeck_audiovideo.atst import FrameTagger, KeywordCall, SoundEventLoss, atst_frame_base, pretrained_encoder
from limbeck_core import Distiller

with read_base():
    from .._base_.desed import *

model = dict(
    type=Distiller,
    student=dict(
        type=FrameTagger,
        encoder=dict(
            type=pretrained_encoder,
            encoder=dict(type=atst_frame_base),
            checkpoint="work_dirs/frame_base/teacher.pth",
        ),
        classes=10,
    ),
    task_loss=dict(type=SoundEventLoss),
    call=dict(type=KeywordCall),
)
