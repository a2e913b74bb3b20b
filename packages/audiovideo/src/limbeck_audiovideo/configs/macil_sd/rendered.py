# MACIL-SD on bags that the package draws: contrast between modalities, weights of the visual peer averaged in.
#   python -m limbeck_audiovideo.macil_sd.rendered_bags bags
#   limbeck train audiovideo/macil_sd/rendered --data-root bags
#   limbeck test audiovideo/macil_sd/rendered --data-root bags --checkpoint work_dirs/rendered/student.pth
from mmengine.config import read_base

from limbeck_audiovideo.macil_sd import AudioVisualNet, BagCall, BagLoss, ModalityContrastLoss, PeerAveraging, VisualNet
from limbeck_core import Distiller, Match, Peers, Tap
from limbeck_core.schedules import Cosine, Linear

with read_base():
    from .._base_.feature_bags import *

train_dataloader.dataset.snippets = 48
train_dataloader.dataset.crops = 1
train_dataloader.batch_size = 50
train_dataloader.num_workers = 0
val_dataloader.dataset.crops = 1
test_dataloader = val_dataloader
train_cfg.max_epochs = 25
train_cfg.val_interval = 25
optim_wrapper.optimizer.lr = 2e-3
model = dict(
    type=Distiller,
    student=dict(
        type=Peers,
        av=dict(type=AudioVisualNet, visual_dim=32, audio_dim=16, width=32, ffn_dim=32),
        v=dict(type=VisualNet, visual_dim=32, width=32, ffn_dim=32),
    ),
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
