# EnsembleScale alone on digits: learnt weights of the components of the final sum, no self-distillation.
#   limbeck train vision/path_ensemble/digits_scale
#   limbeck test vision/path_ensemble/digits_scale --checkpoint work_dirs/digits_scale/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_vision.methods.path_ensemble import PathEnsembleViT
from limbeck_vision.models import ImageCall, timm_model

with read_base():
    from .._base_.digits import *

model = dict(
    type=Distiller,
    student=dict(
        type=PathEnsembleViT,
        vit=dict(
            type=timm_model,
            name="vit_tiny_patch16_224",
            num_classes=10,
            img_size=8,
            patch_size=4,
            embed_dim=32,
            depth=6,
            num_heads=2,
        ),
        scale="channel",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
)
train_dataloader.dataset.update(label_noise=0.0)
train_cfg.update(max_epochs=40, val_interval=40)
param_scheduler.update(T_max=40)
# of 0.003 and 0.01 the better on 300 held-out training images; the same search was made for every arm
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=3e-3, weight_decay=0.05))
