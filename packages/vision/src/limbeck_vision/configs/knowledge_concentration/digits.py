# Knowledge Concentration on two-digit numbers: four specialists teach one student of all hundred labels (FC-SC).
#   limbeck train vision/knowledge_concentration/digits_specialist ...      (four times, as its head comment says)
#   limbeck train vision/knowledge_concentration/digits
#   limbeck test vision/knowledge_concentration/digits --checkpoint work_dirs/digits/student.pth
from mmengine.optim import CosineAnnealingLR
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap
from limbeck_core.engine import EpochLoop
from limbeck_vision.methods.knowledge_concentration import (
    ConcentratedModel,
    DigitPairs,
    SpecialistCall,
    SpecialistLoss,
    VerticalPrecision,
    pretrained_specialists,
)
from limbeck_vision.models import ImageCall, resnet8, resnet8_quarter

train_dataloader = dict(dataset=dict(type=DigitPairs, train=True, count=4000), batch_size=64)
val_dataloader = dict(dataset=dict(type=DigitPairs, train=False, count=1000), batch_size=256)
val_evaluator = dict(type=VerticalPrecision, sizes=[10, 20, 30, 40])
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
model = dict(
    type=Distiller,
    student=dict(
        type=ConcentratedModel,
        backbone=dict(type=resnet8_quarter),
        head=dict(sizes=[10, 20, 30, 40], first_width=64, second_width=16, first="full", second="structured"),
        scale=dict(level="vertical"),
    ),
    teacher=dict(
        type=pretrained_specialists,
        model=dict(type=resnet8, normalization=None),
        checkpoints="work_dirs/specialist-{vertical}/student.pth",
        sizes=[10, 20, 30, 40],
    ),
    call=dict(type=ImageCall),
    teacher_call=dict(type=SpecialistCall),
    matches=dict(
        specialists=dict(
            type=Match,
            loss=dict(type=SpecialistLoss),
            student="logits",
            teacher=dict(type=Tap, path="", of="teacher", pick="probabilities"),
            extras=dict(labels=dict(type=Tap, path="", of="teacher", pick="labels")),
        ),
    ),
)
train_cfg = dict(type=EpochLoop, max_epochs=40, val_interval=40)
param_scheduler = dict(type=CosineAnnealingLR, T_max=40, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
# of 0.01 and 0.03 the better on 1000 held-out training pairs
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=3e-2, weight_decay=1e-4))
