# The student of vision/knowledge_concentration/digits by hard labels alone, without a self-paced scale.
#   limbeck train vision/knowledge_concentration/digits_plain
#   limbeck test vision/knowledge_concentration/digits_plain --checkpoint work_dirs/digits_plain/student.pth
from mmengine.optim import CosineAnnealingLR
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_core.engine import EpochLoop
from limbeck_vision.methods.knowledge_concentration import (
    ConcentratedModel,
    DigitPairs,
    SigmoidCrossEntropyLoss,
    VerticalPrecision,
)
from limbeck_vision.models import ImageCall, resnet8_quarter

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
        scale=None,
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=SigmoidCrossEntropyLoss),
)
train_cfg = dict(type=EpochLoop, max_epochs=40, val_interval=40)
param_scheduler = dict(type=CosineAnnealingLR, T_max=40, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
# of 0.01 and 0.03 the better on 1000 held-out training pairs
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-2, weight_decay=1e-4))
