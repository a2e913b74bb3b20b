# Objects365 v2: ROOT/{train,val}, ROOT/annotations/zhiyuan_objv2_{train,val}.json; ROOT is --data-root or LIMBECK_DATA.
# Warm-up over 500 steps, then a constant learning rate.
from mmengine.optim import LinearLR

from limbeck_detection.data import CocoDetection, StretchTo, detection_batch
from limbeck_detection.evaluation import CocoMetric
from limbeck_detection.predictor import DetectionPredictor

val_dataloader = dict(
    dataset=dict(
        type=CocoDetection,
        root=".",
        images="val",
        annotations="annotations/zhiyuan_objv2_val.json",
        transform=dict(type=StretchTo, size=640),
        truth=True,
    ),
    batch_size=16,
    num_workers=4,
    collate_fn=dict(type=detection_batch),
)
val_evaluator = dict(type=CocoMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
param_scheduler = dict(type=LinearLR, start_factor=0.002, end=500, by_epoch=False)
default_hooks = dict(checkpoint=dict(save_best="AP", rule="greater"))
predictor = dict(type=DetectionPredictor, size=640)
