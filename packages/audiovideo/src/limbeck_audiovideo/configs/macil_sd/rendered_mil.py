# The same networks on the same bags by multiple-instance learning alone: the control of MACIL-SD.
#   python -m limbeck_audiovideo.macil_sd.rendered_bags bags
#   limbeck train audiovideo/macil_sd/rendered_mil --data-root bags
#   limbeck test audiovideo/macil_sd/rendered_mil --data-root bags --checkpoint work_dirs/rendered_mil/student.pth
from mmengine.config import read_base

from limbeck_audiovideo.macil_sd import AudioVisualNet, BagCall, BagLoss, VisualNet
from limbeck_core import Distiller, Peers

with read_base():
    from .._base_.feature_bags import *

train_dataloader.dataset.snippets = 48
train_dataloader.dataset.crops = 1
train_dataloader.batch_size = 50
train_dataloader.num_workers = 0
val_dataloader.dataset.crops = 1
test_dataloader = val_dataloader
train_cfg.max_epochs = 25
train_cfg.val_interval = 25
optim_wrapper.optimizer.lr = 2e-3
model = dict(
    type=Distiller,
    student=dict(
        type=Peers,
        av=dict(type=AudioVisualNet, visual_dim=32, audio_dim=16, width=32, ffn_dim=32),
        v=dict(type=VisualNet, visual_dim=32, width=32, ffn_dim=32),
    ),
    call=dict(type=BagCall),
    task_loss=dict(type=BagLoss),
)
