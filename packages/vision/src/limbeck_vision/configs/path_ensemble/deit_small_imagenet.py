# Path ensemble of DeiT-S on ImageNet: EnsembleScale and self-distillation, with DeiT's AdamW for 300 epochs.
# DATA holds train/ and val/ with a folder a class. DeiT's mixing, RandAugment and repeated augmentation are not in it.
# Pairs and weights of the self-distillation are our choice; the paper's were not established.
#   limbeck train vision/path_ensemble/deit_small_imagenet --data-root DATA --amp
#   limbeck test vision/path_ensemble/deit_small_imagenet --data-root DATA \
#       --checkpoint work_dirs/deit_small_imagenet/student.pth
from mmengine.optim import CosineAnnealingLR, LinearLR
from torch.nn import CrossEntropyLoss
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap
from limbeck_core.engine import EpochLoop
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.data import ImageFolder, center_crop, random_resized_crop
from limbeck_vision.evaluation import ClassificationMetric
from limbeck_vision.methods.path_ensemble import PathEnsembleViT
from limbeck_vision.models import ImageCall, timm_model
from limbeck_vision.predictor import ImagePredictor

train_dataloader = dict(
    dataset=dict(type=ImageFolder, root="train", transform=dict(type=random_resized_crop)),
    batch_size=128,
    num_workers=8,
)
val_dataloader = dict(
    dataset=dict(type=ImageFolder, root="val", transform=dict(type=center_crop)), batch_size=256, num_workers=8
)
val_evaluator = dict(type=ClassificationMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
predictor = dict(type=ImagePredictor, size=224)

model = dict(
    type=Distiller,
    student=dict(
        type=PathEnsembleViT,
        vit=dict(type=timm_model, name="deit_small_patch16_224", num_classes=1000, drop_path_rate=0.1),
        scale="channel",
        boundaries=(9, 10, 11),
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        path9=dict(
            type=Match,
            loss=dict(type=KLDivergenceLoss, temperature=1.0),
            student="partial_logits.9",
            teacher=dict(type=Tap, path="partial_logits.11", of="student"),
            weight=0.1,
        ),
        path10=dict(
            type=Match,
            loss=dict(type=KLDivergenceLoss, temperature=1.0),
            student="partial_logits.10",
            teacher=dict(type=Tap, path="partial_logits.final", of="student"),
            weight=0.1,
        ),
    ),
)
train_cfg = dict(type=EpochLoop, max_epochs=300)
# 5e-4 a batch of 512: multiply by ranks x 128 / 512
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=5e-4, weight_decay=0.05))
param_scheduler = [
    dict(type=LinearLR, start_factor=1e-3, end=5, by_epoch=True, convert_to_iter_based=True),
    dict(type=CosineAnnealingLR, T_max=295, begin=5, eta_min=1e-5, by_epoch=True, convert_to_iter_based=True),
]
