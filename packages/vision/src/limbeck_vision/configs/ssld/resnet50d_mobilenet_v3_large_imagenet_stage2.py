# SSLD's second stage: the student of stage 1 on ImageNet alone for 30 epochs at a small rate.
# Reported: 78.96 %. DATA holds train/ and val/ (CLASS/IMAGE).
#   limbeck train vision/ssld/resnet50d_mobilenet_v3_large_imagenet_stage2 --data-root DATA
#   limbeck test vision/ssld/resnet50d_mobilenet_v3_large_imagenet_stage2 --data-root DATA \
#       --checkpoint work_dirs/resnet50d_mobilenet_v3_large_imagenet_stage2/student.pth
from mmengine.optim import CosineAnnealingLR
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.engine import EpochLoop
from limbeck_vision.data import ImageFolder, center_crop, random_resized_crop
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.methods.ssld import SymmetricKLLoss, WithoutLabels
from limbeck_vision.models import ImageCall, timm_model
from limbeck_vision.predictor import ImagePredictor

train_dataloader = dict(
    dataset=dict(
        type=WithoutLabels,
        datasets=[dict(type=ImageFolder, root="train")],
        transform=dict(type=random_resized_crop),
    ),
    batch_size=64,  # on each of 32 cards
    num_workers=8,
)
val_dataloader = dict(
    dataset=dict(type=ImageFolder, root="val", transform=dict(type=center_crop)),
    batch_size=256,
    num_workers=8,
)
val_evaluator = dict(type=ClassificationMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
predictor = dict(type=ImagePredictor, size=224)
model = dict(
    type=Distiller,
    student=dict(type=timm_model, name="mobilenetv3_large_100", num_classes=1000),
    teacher=dict(
        type=pretrained,
        model=dict(type=timm_model, name="resnet50d", num_classes=1000),
        checkpoint="checkpoints/resnet50d_imagenet.pth",
    ),
    call=dict(type=ImageCall),
    matches=dict(ssld=dict(type=Match, loss=dict(type=SymmetricKLLoss), student="classifier", teacher="fc")),
)
load_from = "work_dirs/resnet50d_mobilenet_v3_large_imagenet_stage1/student.pth"
train_cfg = dict(type=EpochLoop, max_epochs=30)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.008, momentum=0.9, weight_decay=1e-5))
param_scheduler = dict(type=CosineAnnealingLR, T_max=30, by_epoch=True, convert_to_iter_based=True)
