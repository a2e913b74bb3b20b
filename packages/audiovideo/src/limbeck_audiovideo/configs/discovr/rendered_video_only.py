# The video branch of DISCOVR alone on rendered clips: self-distillation of masked clips, without images or clusters.
#   python -m limbeck_audiovideo.rendered_video hearts
#   limbeck train audiovideo/discovr/rendered_video_only --data-root hearts
#   limbeck test audiovideo/discovr/rendered_video_only --data-root hearts \
#       --checkpoint work_dirs/rendered_video_only/student.pth
from mmengine.config import read_base

from limbeck_audiovideo.discovr import MaskedCall, Views, discovr_tiny
from limbeck_audiovideo.discovr.masks import RandomMask
from limbeck_core import Distiller, EMATeacher, Match, Tap
from limbeck_core.engine import EMAHook
from limbeck_core.losses import DINOLoss

with read_base():
    from .._base_.rendered_video import *

mask = dict(type=RandomMask, ratio=0.6)
dino = dict(
    type=DINOLoss,
    num_prototypes=64,
    teacher_temperature=0.02,
    center_momentum=0.9,
    teacher_views=1,
    skip_same_view=False,
)
model = dict(
    type=Distiller,
    student=dict(type=discovr_tiny, branches="video"),
    teacher=dict(video=dict(type=EMATeacher, momentum=0.95, follows="video")),
    call=dict(type=MaskedCall, views=dict(type=Views, local=4, video=mask, image=mask)),
    matches=dict(
        video=dict(type=Match, loss=dino, student="video.head", teacher=dict(type=Tap, path="head", of="video")),
    ),
)
custom_hooks = [dict(type=EMAHook, momentum=0.95)]
