# Events in time on rendered sounds: a pretrained ATST-Frame fine-tuned on recordings with strong labels.
#   limbeck train audiovideo/atst/sounds_frame --data-root sounds
#   limbeck train audiovideo/atst/sounds_events --data-root sounds
#   limbeck test audiovideo/atst/sounds_events --data-root sounds --checkpoint work_dirs/sounds_events/student.pth
from mmengine.optim import CosineAnnealingLR
from torch.optim import AdamW

from limbeck_audiovideo.atst import FrameEncoder, FrameTagger, KeywordCall, SoundEventLoss, pretrained_encoder
from limbeck_audiovideo.audio import SoundEvents
from limbeck_audiovideo.evaluation.metric import EventMetric
from limbeck_audiovideo.rendered_audio import CLASSES
from limbeck_core import Distiller
from limbeck_core.engine import StepLoop

# windows of 2 s have the positions that pretraining saw
train_dataloader = dict(
    dataset=dict(
        type=SoundEvents,
        root=".",
        audio="events/train",
        strong="events_train.tsv",
        classes=CLASSES,
        seconds=2.0,
    ),
    batch_size=20,
)
val_dataloader = dict(
    dataset=dict(
        type=SoundEvents,
        root=".",
        audio="events/test",
        strong="events_test.tsv",
        classes=CLASSES,
        seconds=2.0,
    ),
    batch_size=60,
)
val_evaluator = dict(type=EventMetric, classes=CLASSES)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=StepLoop, max_steps=300)
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.05))
param_scheduler = dict(type=CosineAnnealingLR, T_max=300, eta_min=0.0, by_epoch=False)
model = dict(
    type=Distiller,
    student=dict(
        type=FrameTagger,
        encoder=dict(
            type=pretrained_encoder,
            encoder=dict(type=FrameEncoder, dim=64, depth=3, heads=2, max_frames=201),
            checkpoint="work_dirs/sounds_frame/teacher.pth",
        ),
        classes=8,
    ),
    task_loss=dict(type=SoundEventLoss),
    call=dict(type=KeywordCall),
)
