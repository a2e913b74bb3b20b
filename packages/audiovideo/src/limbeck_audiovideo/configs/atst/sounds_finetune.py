# ATST-Clip, pretrained on rendered sounds, fine-tuned on five labelled clips of each class.
#   limbeck train audiovideo/atst/sounds_clip --data-root sounds
#   limbeck train audiovideo/atst/sounds_finetune --data-root sounds
from mmengine.config import read_base
from torch.nn import BCEWithLogitsLoss

from limbeck_audiovideo.atst import ClipEncoder, ClipTagger, KeywordCall, LayerDecay, pretrained_encoder
from limbeck_core import Distiller

with read_base():
    from .._base_.few_sounds import *
    from .._base_.rendered_sounds import *

optim_wrapper.constructor = LayerDecay
optim_wrapper.paramwise_cfg = dict(decay=0.75)
model = dict(
    type=Distiller,
    student=dict(
        type=ClipTagger,
        encoder=dict(
            type=pretrained_encoder,
            encoder=dict(type=ClipEncoder, dim=64, depth=3, heads=2, max_frames=201),
            checkpoint="work_dirs/sounds_clip/teacher.pth",
        ),
        classes=8,
    ),
    task_loss=dict(type=BCEWithLogitsLoss),
    call=dict(type=KeywordCall),
)
