# ATST-C2F on rendered sounds: a pretrained ATST-Frame fine-tuned on five labelled clips of each class, half of the loss
# from the labels and half from a fine-tuned ATST-Clip.
#   limbeck train audiovideo/atst/sounds_frame --data-root sounds
#   limbeck train audiovideo/atst/sounds_clip --data-root sounds
#   limbeck train audiovideo/atst/sounds_finetune --data-root sounds
#   limbeck train audiovideo/atst/sounds_c2f --data-root sounds
from mmengine.config import read_base
from torch.nn import BCEWithLogitsLoss

from limbeck_audiovideo.atst import (
    ClipEncoder,
    ClipTagger,
    FrameEncoder,
    KeywordCall,
    LayerDecay,
    SoftLabelBinaryLoss,
    pretrained_encoder,
)
from limbeck_core import Distiller, Match, pretrained

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
            encoder=dict(type=FrameEncoder, dim=64, depth=3, heads=2, max_frames=201),
            checkpoint="work_dirs/sounds_frame/teacher.pth",
        ),
        classes=8,
    ),
    teacher=dict(
        type=pretrained,
        model=dict(
            type=ClipTagger,
            encoder=dict(type=ClipEncoder, dim=64, depth=3, heads=2, max_frames=201),
            classes=8,
        ),
        checkpoint="work_dirs/sounds_finetune/student.pth",
    ),
    task_loss=dict(type=BCEWithLogitsLoss),
    task_weight=0.5,
    matches=dict(
        clip=dict(type=Match, loss=dict(type=SoftLabelBinaryLoss), student="head", teacher="head", weight=0.5),
    ),
    call=dict(type=KeywordCall),
)
