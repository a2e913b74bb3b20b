# An expert for rendered tiles: a small network that learns one property from labels, the size of nuclei by default.
#   python -m limbeck_medical.gpfm.rendering DATA/tiles
#   limbeck train medical/gpfm/tiles_expert --data-root DATA/tiles --work-dir work_dirs/expert_size
#   limbeck train medical/gpfm/tiles_expert --data-root DATA/tiles --work-dir work_dirs/expert_arrangement \
#       --cfg-options train_dataloader.dataset.part=arrangement
from torch.nn import CrossEntropyLoss
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_core.engine import EpochLoop
from limbeck_medical.gpfm import Expert, ExpertCall, TileFolder, timm_model

train_dataloader = dict(
    dataset=dict(type=TileFolder, root=".", part="size", size=48, augment=True), batch_size=32, drop_last=True
)
model = dict(
    type=Distiller,
    student=dict(type=Expert, model=dict(type=timm_model, name="resnet10t"), num_classes=2),
    call=dict(type=ExpertCall),
    task_loss=dict(type=CrossEntropyLoss),
)
train_cfg = dict(type=EpochLoop, max_epochs=6)
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.05))
