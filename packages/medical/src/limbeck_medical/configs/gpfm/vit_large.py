# GPFM at the paper's size: ViT-L/14 from DINOv2's objective and from UNI, Phikon and CONCH, on tiles of slides.
#   limbeck train medical/gpfm/vit_large --data-root DATA/tiles        (pictures in DATA/tiles, of any class or none)
# checkpoints/uni.pth, phikon.pth and conch.pth hold the experts' encoders under timm's names; the licences are theirs.
from mmengine.optim import CosineAnnealingLR, CosineAnnealingParamScheduler, LinearLR
from torch.optim import AdamW

from limbeck_core import pretrained
from limbeck_core.engine import EMAHook, StepLoop
from limbeck_core.schedules import Cosine, Linear
from limbeck_medical.gpfm import (
    Expert,
    GPFMDistiller,
    TileEncoder,
    TileParameterGroups,
    TileStudent,
    TileViews,
    timm_model,
)

# an "epoch" of the paper is 1250 steps, whatever the number of tiles
_momentum = dict(type=Cosine, start=0.992, end=1.0)
_large = dict(type=timm_model, name="vit_large_patch16_224", init_values=1e-5, dynamic_img_size=True)  # UNI
_base = dict(type=timm_model, name="vit_base_patch16_224")  # Phikon
# CONCH's tower pools by attention to 512 features: a model with forward_features and num_features stands in its place
_conch = dict(type=timm_model, name="vit_base_patch16_224")
_vit = dict(
    type=timm_model,
    name="vit_large_patch14_dinov2",
    img_size=224,
    dynamic_img_size=True,
    init_values=1e-5,
    drop_path_rate=0.4,
)

train_dataloader = dict(
    dataset=dict(type=TileViews, root="."), batch_size=96, num_workers=16, drop_last=True, pin_memory=True
)
model = dict(
    type=GPFMDistiller,
    student=dict(type=TileStudent, encoder=dict(type=TileEncoder, vit=_vit)),
    experts=dict(
        uni=dict(type=pretrained, model=dict(type=Expert, model=_large), checkpoint="checkpoints/uni.pth"),
        phikon=dict(type=pretrained, model=dict(type=Expert, model=_base), checkpoint="checkpoints/phikon.pth"),
        conch=dict(
            type=pretrained,
            model=dict(type=Expert, model=_conch, normalize_output=True),
            checkpoint="checkpoints/conch.pth",
        ),
    ),
    weights=dict(uni=(1.0, 0.25), phikon=(0.5, 0.125), conch=(1.0, 0.0)),
    momentum=_momentum,
    teacher_temperature=dict(type=Linear, start=0.04, end=0.07, until=37500, by="step"),
)
train_cfg = dict(type=StepLoop, max_steps=500000)
# 4e-4 for 1024 tiles a step, by the square root: for 96 on each of 8 cards 3.5e-4
optim_wrapper = dict(
    optimizer=dict(type=AdamW, lr=3.5e-4, weight_decay=0.04, betas=(0.9, 0.999)),
    constructor=TileParameterGroups,
    paramwise_cfg=dict(layer_decay=0.9, patch_embed=0.2),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=1e-6, begin=0, end=50000, by_epoch=False),
    dict(type=CosineAnnealingLR, T_max=450000, eta_min=1e-6, begin=50000, end=500000, by_epoch=False),
    dict(
        type=CosineAnnealingParamScheduler,
        param_name="weight_decay",
        T_max=500000,
        eta_min_ratio=10.0,
        begin=0,
        end=500000,
        by_epoch=False,
    ),
]
custom_hooks = [dict(type=EMAHook, momentum=_momentum)]
