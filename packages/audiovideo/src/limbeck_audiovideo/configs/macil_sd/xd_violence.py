# MACIL-SD on XD-Violence as published, with the card's widths; frames are judged once, at the end.
#   limbeck train audiovideo/macil_sd/xd_violence --data-root XD
#   limbeck test audiovideo/macil_sd/xd_violence --data-root XD --checkpoint work_dirs/xd_violence/student.pth
from mmengine.config import read_base

from limbeck_audiovideo.macil_sd import AudioVisualNet, BagCall, BagLoss, ModalityContrastLoss, PeerAveraging, VisualNet
from limbeck_core import Distiller, Match, Peers, Tap
from limbeck_core.schedules import Cosine, Linear

with read_base():
    from .._base_.feature_bags import *

model = dict(
    type=Distiller,
    student=dict(type=Peers, av=dict(type=AudioVisualNet), v=dict(type=VisualNet)),
    call=dict(type=BagCall),
    task_loss=dict(type=BagLoss),
    matches=dict(
        contrast=dict(
            type=Match,
            loss=dict(type=ModalityContrastLoss, temperature=0.1),
            student=dict(type=Tap, path="av", of="student", pick="audio_features"),
            teacher=dict(type=Tap, path="av", of="student", pick="visual_features"),
            extras=dict(
                student_logits=dict(type=Tap, path="av", of="student", pick="audio_logits"),
                teacher_logits=dict(type=Tap, path="av", of="student", pick="visual_logits"),
                bag_logits=dict(type=Tap, path="av", of="student", pick="bag_logits"),
                length=dict(type=Tap, path="av", of="student", pick="length"),
            ),
            weight=dict(type=Linear, start=0.0, end=1.5, until=15, by="epoch"),
        ),
    ),
)
custom_hooks = [
    dict(type=PeerAveraging, momentum=dict(type=Cosine, start=0.91, end=1.0, until=50, by="epoch")),
]
