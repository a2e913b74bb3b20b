# DISCOVR on rendered clips, without labels: a tiny video branch, an image branch, and clusters from one to the other.
#   python -m limbeck_audiovideo.rendered_video hearts
#   limbeck train audiovideo/discovr/rendered --data-root hearts
#   limbeck test audiovideo/discovr/rendered --data-root hearts --checkpoint work_dirs/rendered/student.pth
# What is judged is the moving average of the video branch, which is its teacher. Temperature and momenta were chosen on
# clips of another seed: DISCOVR's own need more steps than a processor has.
from mmengine.config import read_base

from limbeck_audiovideo.discovr import ClusterDistillationLoss, MaskedCall, Views, discovr_tiny
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
    student=dict(type=discovr_tiny),
    teacher=dict(
        video=dict(type=EMATeacher, momentum=0.95, follows="video"),
        image=dict(type=EMATeacher, momentum=0.95, follows="image"),
    ),
    call=dict(type=MaskedCall, views=dict(type=Views, local=4, video=mask, image=mask)),
    matches=dict(
        video=dict(type=Match, loss=dino, student="video.head", teacher=dict(type=Tap, path="head", of="video")),
        image=dict(type=Match, loss=dino, student="image.head", teacher=dict(type=Tap, path="head", of="image")),
        clusters=dict(
            type=Match,
            loss=dict(type=ClusterDistillationLoss, num_prototypes=32, dim=64),
            student="decoder",
            teacher=dict(type=Tap, path="", of="image", pick="tokens"),
        ),
    ),
)
custom_hooks = [dict(type=EMAHook, momentum=0.95)]
