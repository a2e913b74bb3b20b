# Rendered tiles (python -m limbeck_medical.gpfm.rendering ROOT) and a small transformer that learns from itself alone,
# for trials on a CPU. ROOT is --data-root or LIMBECK_DATA. Tiles of 48 pixels, patches of 8; no class is read.
from torch.optim import AdamW

from limbeck_core.engine import EMAHook, EpochLoop
from limbeck_core.schedules import Cosine, Linear
from limbeck_medical.gpfm import GPFMDistiller, TileEncoder, TileParameterGroups, TileStudent, TileViews, timm_model

_vit = dict(
    type=timm_model,
    name="vit_tiny_patch16_224",
    img_size=48,
    patch_size=8,
    embed_dim=64,
    depth=4,
    num_heads=4,
    dynamic_img_size=True,
)
# of 320 steps a momentum near 1 would leave the average where it began
_momentum = dict(type=Cosine, start=0.9, end=1.0)

train_dataloader = dict(
    dataset=dict(type=TileViews, root=".", part="train", global_size=48, local_size=24, local_views=4, patch=8),
    batch_size=32,
    drop_last=True,
)
model = dict(
    type=GPFMDistiller,
    student=dict(type=TileStudent, encoder=dict(type=TileEncoder, vit=_vit), prototypes=256, hidden=256, bottleneck=64),
    momentum=_momentum,
    teacher_temperature=dict(type=Linear, start=0.04, end=0.07, until=3, by="epoch"),
    bottleneck=64,
)
train_cfg = dict(type=EpochLoop, max_epochs=10)
optim_wrapper = dict(
    optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.04),
    constructor=TileParameterGroups,
    clip_grad=dict(max_norm=3.0),
)
# the same moving average as the teacher's: checkpoints, tests and exports take it
custom_hooks = [dict(type=EMAHook, momentum=_momentum)]
