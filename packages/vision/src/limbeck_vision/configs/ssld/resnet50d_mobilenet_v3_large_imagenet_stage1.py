# SSLD from ResNet-50-D to MobileNetV3-large: 360 epochs on ImageNet and 4 million selected unlabelled images.
# Reported: 78.54 %. DATA holds ImageNet's train/ and val/ (CLASS/IMAGE) and the unlabelled pool/.
#   python -m limbeck_vision.methods.ssld.select vision/ssld/resnet50d_mobilenet_v3_large_imagenet_stage1 \
#       DATA/pool --per-class 4000 --out DATA/pool/selection.txt
#   limbeck train vision/ssld/resnet50d_mobilenet_v3_large_imagenet_stage1 --data-root DATA
#   limbeck test vision/ssld/resnet50d_mobilenet_v3_large_imagenet_stage1 --data-root DATA \
#       --checkpoint work_dirs/resnet50d_mobilenet_v3_large_imagenet_stage1/student.pth
from mmengine.optim import CosineAnnealingLR, LinearLR
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.engine import EpochLoop
from limbeck_vision.data import ImageFolder, center_crop, random_resized_crop
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.methods.ssld import SelectedImages, SymmetricKLLoss, WithoutLabels
from limbeck_vision.models import ImageCall, timm_model
from limbeck_vision.predictor import ImagePredictor

train_dataloader = dict(
    dataset=dict(
        type=WithoutLabels,
        datasets=[
            dict(type=ImageFolder, root="train"),
            dict(type=SelectedImages, root="pool", selection="selection.txt"),
        ],
        transform=dict(type=random_resized_crop),
    ),
    batch_size=240,  # on each of 24 cards
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
train_cfg = dict(type=EpochLoop, max_epochs=360)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=3.65625, momentum=0.9, weight_decay=1e-5))
param_scheduler = [
    dict(type=LinearLR, start_factor=0.001, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type=CosineAnnealingLR, by_epoch=True, begin=5, end=360, convert_to_iter_based=True),
]
