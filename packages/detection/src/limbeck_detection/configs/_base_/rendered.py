# Coloured shapes that the package draws, in COCO's format, 96 x 96 pixels:
#   python -m limbeck_detection.rendered shapes        (then --data-root shapes)
from mmengine.optim import LinearLR
from torch.optim import AdamW

from limbeck_core.engine import StepLoop
from limbeck_detection.data import CocoDetection, StretchTo, detection_batch
from limbeck_detection.evaluation import CocoMetric
from limbeck_detection.predictor import DetectionPredictor
from limbeck_detection.training import ClassCheckHook, DetectorParameterGroups

train_dataloader = dict(
    dataset=dict(
        type=CocoDetection,
        root=".",
        images="train",
        annotations="train.json",
        transform=dict(type=StretchTo, size=96),
    ),
    batch_size=8,
    collate_fn=dict(type=detection_batch),
)
val_dataloader = dict(
    dataset=dict(
        type=CocoDetection,
        root=".",
        images="val",
        annotations="val.json",
        transform=dict(type=StretchTo, size=96),
        truth=True,
    ),
    batch_size=30,
    collate_fn=dict(type=detection_batch),
)
val_evaluator = dict(type=CocoMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=StepLoop, max_steps=300, val_interval=100)
param_scheduler = dict(type=LinearLR, start_factor=0.02, end=50, by_epoch=False)
optim_wrapper = dict(
    constructor=DetectorParameterGroups,
    optimizer=dict(type=AdamW, lr=4e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1),
)
custom_hooks = [dict(type=ClassCheckHook)]
default_hooks = dict(checkpoint=dict(save_best="AP", rule="greater", every_epochs=None))
predictor = dict(type=DetectionPredictor, size=96, classes=["circle", "square", "triangle"])
