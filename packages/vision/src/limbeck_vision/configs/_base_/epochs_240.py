# The recipe of the CRD and DKD tables: 240 epochs of SGD, learning rate a tenth after 150, 180 and 210.
from mmengine.optim import MultiStepLR
from torch.optim import SGD

from limbeck_core.engine import EpochLoop

train_cfg = dict(type=EpochLoop, max_epochs=240)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(type=MultiStepLR, milestones=[150, 180, 210], gamma=0.1)
default_hooks = dict(checkpoint=dict(save_best="top1", rule="greater"))
