# A specialist of one vertical of two-digit numbers: ResNet-8 by sigmoid cross-entropy. Verticals 0 to 3 hold the
# numbers 00-09, 10-29, 30-59 and 60-99.
#   limbeck train vision/knowledge_concentration/digits_specialist --work-dir work_dirs/specialist-0
#   limbeck train vision/knowledge_concentration/digits_specialist --work-dir work_dirs/specialist-1 --cfg-options \
#       model.student.num_classes=20 train_dataloader.dataset.vertical=1 val_dataloader.dataset.vertical=1
#   (and so on: 30 labels in vertical 2, 40 in vertical 3)
from mmengine.optim import CosineAnnealingLR
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_core.engine import EpochLoop
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.methods.knowledge_concentration import DigitPairs, OneVertical, SigmoidCrossEntropyLoss
from limbeck_vision.models import ImageCall, resnet8

train_dataloader = dict(
    dataset=dict(
        type=OneVertical, dataset=dict(type=DigitPairs, train=True, count=4000), sizes=[10, 20, 30, 40], vertical=0
    ),
    batch_size=64,
)
val_dataloader = dict(
    dataset=dict(
        type=OneVertical, dataset=dict(type=DigitPairs, train=False, count=1000), sizes=[10, 20, 30, 40], vertical=0
    ),
    batch_size=256,
)
val_evaluator = dict(type=ClassificationMetric)
val_cfg = dict()
model = dict(
    type=Distiller,
    student=dict(type=resnet8, num_classes=10, normalization=None),
    call=dict(type=ImageCall),
    task_loss=dict(type=SigmoidCrossEntropyLoss),
)
train_cfg = dict(type=EpochLoop, max_epochs=10, val_interval=10)
param_scheduler = dict(type=CosineAnnealingLR, T_max=10, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-2, weight_decay=1e-4))
