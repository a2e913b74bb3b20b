# Digits with few labels: 100 labelled images, 300 to choose settings by, 597 test images; the other 800 training images
# are a pool without labels, to which the configs add 800 images of no class. Every run has as many steps.
from mmengine.optim import CosineAnnealingLR

from limbeck_core.engine import StepLoop, held_out_part
from limbeck_vision.data import Digits
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.predictor import ImagePredictor

val_dataloader = dict(
    dataset=dict(type=held_out_part, dataset=dict(type=Digits, train=True, channels=3), count=300, held_out=True),
    batch_size=256,
)
val_evaluator = dict(type=ClassificationMetric)
val_cfg = dict()
test_dataloader = dict(dataset=dict(type=Digits, train=False, channels=3), batch_size=256)
test_evaluator = dict(type=ClassificationMetric)
test_cfg = dict()
train_cfg = dict(type=StepLoop, max_steps=300, val_interval=300)
param_scheduler = dict(type=CosineAnnealingLR, T_max=300, eta_min=0.0, by_epoch=False)
default_hooks = dict(checkpoint=dict(every_epochs=None))
predictor = dict(type=ImagePredictor, size=8)
