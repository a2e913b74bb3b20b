# The initialisation stage of AB, FSP and FT in the CRD tables: 30 epochs of SGD at one learning rate.
from torch.optim import SGD

from limbeck_core.engine import EpochLoop

train_cfg = dict(type=EpochLoop, max_epochs=30)
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=5e-4))
