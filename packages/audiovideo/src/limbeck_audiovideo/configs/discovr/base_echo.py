# DISCOVR at its published size on EchoNet-Dynamic's normal hearts: ViT-B branches, 3000 clusters, batch 16 a process.
#   limbeck train audiovideo/discovr/base_echo --data-root DATA/EchoNet-Dynamic --amp
#   limbeck test audiovideo/discovr/base_echo --data-root DATA/EchoNet-Dynamic \
#       --checkpoint work_dirs/base_echo/student.pth
# What is judged is the moving average of the video branch, which is its teacher.
from mmengine.config import read_base

from limbeck_audiovideo.discovr import ClusterDistillationLoss, MaskedCall, discovr_base
from limbeck_core import Distiller, EMATeacher, Match, Tap
from limbeck_core.engine import EMAHook
from limbeck_core.losses import DINOLoss
from limbeck_core.schedules import Linear

with read_base():
    from .._base_.echo_video import *

dino = dict(
    type=DINOLoss,
    num_prototypes=16384,
    teacher_temperature=dict(type=Linear, start=0.04, end=0.07, until=29, by="epoch"),
    center_momentum=0.8,
    teacher_views=1,
    skip_same_view=False,
)
model = dict(
    type=Distiller,
    student=dict(type=discovr_base),
    teacher=dict(
        video=dict(type=EMATeacher, momentum=0.99, follows="video"),
        image=dict(type=EMATeacher, momentum=0.99, follows="image"),
    ),
    call=dict(type=MaskedCall),
    matches=dict(
        video=dict(type=Match, loss=dino, student="video.head", teacher=dict(type=Tap, path="head", of="video")),
        image=dict(
            type=Match,
            loss=dino,
            student="image.head",
            teacher=dict(type=Tap, path="head", of="image"),
            weight=0.25,  # 256 over the 1024 frames of a step
        ),
        clusters=dict(
            type=Match,
            loss=dict(type=ClusterDistillationLoss, num_prototypes=3000, dim=768),
            student="decoder",
            teacher=dict(type=Tap, path="", of="image", pick="tokens"),
        ),
    ),
)
custom_hooks = [dict(type=EMAHook, momentum=0.99)]
