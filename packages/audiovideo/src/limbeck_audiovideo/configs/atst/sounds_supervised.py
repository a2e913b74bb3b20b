# The control of ATST on rendered sounds: the same encoder from random weights, on five labelled clips of each class.
#   python -m limbeck_audiovideo.rendered_audio sounds
#   limbeck train audiovideo/atst/sounds_supervised --data-root sounds
#   limbeck test audiovideo/atst/sounds_supervised --data-root sounds --checkpoint student.pth
from mmengine.config import read_base
from torch.nn import BCEWithLogitsLoss

from limbeck_audiovideo.atst import ClipEncoder, ClipTagger, KeywordCall
from limbeck_core import Distiller

with read_base():
    from .._base_.few_sounds import *
    from .._base_.rendered_sounds import *

model = dict(
    type=Distiller,
    student=dict(
        type=ClipTagger,
        encoder=dict(type=ClipEncoder, dim=64, depth=3, heads=2, max_frames=201),
        classes=8,
    ),
    task_loss=dict(type=BCEWithLogitsLoss),
    call=dict(type=KeywordCall),
)
