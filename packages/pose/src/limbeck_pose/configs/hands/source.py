# A hand network on labelled source hands alone: the start of every adaptation, and what it has to beat.
#   python -m limbeck_pose.hand_adaptation.rendered hands
#   limbeck train pose/hands/source --data-root hands --seed 0 --work-dir work_dirs/source
#   limbeck test pose/hands/source --data-root hands --checkpoint work_dirs/source/student.pth
# Two teachers need two more, from other seeds:
#   limbeck train pose/hands/source --data-root hands --seed 1 --work-dir work_dirs/source_first
#   limbeck train pose/hands/source --data-root hands --seed 2 --work-dir work_dirs/source_second
from mmengine.config import read_base
from mmengine.optim import CosineAnnealingLR

from limbeck_core import Distiller
from limbeck_pose.hand_adaptation import HandAugmentation, HandNet, Hands, HandTaskLoss

with read_base():
    from .._base_.hands import *

train_dataloader.dataset = dict(
    type=Hands, root=".", folder="source/train", codec=codec, augmentation=dict(type=HandAugmentation)
)
train_cfg.max_epochs = 40
train_cfg.val_interval = 40
optim_wrapper.optimizer.lr = 5e-3
param_scheduler = dict(type=CosineAnnealingLR, T_max=40, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
model = dict(
    type=Distiller,
    student=dict(type=HandNet, width=16, stacks=1, depth=2, blocks=1, dropout=0.0),
    task_loss=dict(type=HandTaskLoss, heatmap_weight=1e3, mask_weight=20.0, knee=1.0),  # squared: a short run
)
