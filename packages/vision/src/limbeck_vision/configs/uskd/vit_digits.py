# USKD of a small vision transformer on digits: the weak head reads the class token after block 2 of 4.
#   limbeck train vision/uskd/vit_digits
#   limbeck test vision/uskd/vit_digits --checkpoint work_dirs/uskd_vit_digits/student.pth
# Cross-entropy alone, for comparison: add to the first
#       --cfg-options model.matches.uskd.weight=0.0
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap
from limbeck_core.losses import CustomizedSoftLabelLoss
from limbeck_vision.methods.uskd import ClassToken
from limbeck_vision.models import ImageCall, timm_model

with read_base():
    from .._base_.digits import *

train_dataloader["dataset"].update(label_noise=0.0)

model = dict(
    type=Distiller,
    student=dict(
        type=timm_model,
        name="deit_tiny_patch16_224",
        num_classes=10,
        img_size=8,
        patch_size=2,
        embed_dim=48,
        depth=4,
        num_heads=3,
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        uskd=dict(
            type=Match,
            loss=dict(type=CustomizedSoftLabelLoss, feature_channels=48, num_classes=10),
            student="head",
            teacher=dict(type=Tap, path="blocks.1", of="student"),
            teacher_adapter=dict(type=ClassToken),
        ),
    ),
)

optim_wrapper = dict(optimizer=dict(type=AdamW, lr=3e-3, weight_decay=0.05))
work_dir = "work_dirs/uskd_vit_digits"
