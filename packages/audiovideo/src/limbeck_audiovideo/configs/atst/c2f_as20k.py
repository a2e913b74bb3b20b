# ATST-C2F on AudioSet-20K: ATST-Frame base fine-tuned on the labels and on what a fine-tuned ATST-Clip says.
#   limbeck train audiovideo/atst/clip_as20k --data-root D
#   limbeck train audiovideo/atst/c2f_as20k --data-root D
from mmengine.config import read_base
from torch.nn import BCEWithLogitsLoss

from limbeck_audiovideo.atst import (
    ClipTagger,
    KeywordCall,
    SoftLabelBinaryLoss,
    atst_clip_base,
    atst_frame_base,
    pretrained_encoder,
)
from limbeck_core import Distiller, Match, pretrained

with read_base():
    from .._base_.as20k import *

optim_wrapper.optimizer.lr = 6.0  # 3.0 for 256 clips, as the authors' command has it for distillation
model = dict(
    type=Distiller,
    student=dict(
        type=ClipTagger,
        encoder=dict(
            type=pretrained_encoder,
            encoder=dict(type=atst_frame_base),
            checkpoint="work_dirs/frame_base/teacher.pth",
        ),
        classes=527,
    ),
    teacher=dict(
        type=pretrained,
        model=dict(type=ClipTagger, encoder=dict(type=atst_clip_base), classes=527),
        checkpoint="work_dirs/clip_as20k/best_map.pth",
    ),
    task_loss=dict(type=BCEWithLogitsLoss),
    task_weight=0.5,
    matches=dict(
        clip=dict(type=Match, loss=dict(type=SoftLabelBinaryLoss), student="head", teacher="head", weight=0.5),
    ),
    call=dict(type=KeywordCall),
)
