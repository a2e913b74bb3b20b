# A tenth of the digits, distilled from a teacher of all of them; as many steps as 20 epochs of all digits have.
#   limbeck train vision/data_pruning/digits_whole                (the teacher, once)
#   limbeck train vision/data_pruning/digits                      (kept by chance)
#   python -m limbeck_vision.methods.data_pruning.scoring vision/data_pruning/digits_whole --score el2n --epochs 3
#   limbeck train vision/data_pruning/digits \
#       --cfg-options train_dataloader.dataset.scores=work_dirs/data_pruning/scores.npz      (the hardest kept)
#   limbeck test vision/data_pruning/digits --checkpoint work_dirs/digits/student.pth
from mmengine.config import read_base
from mmengine.optim import CosineAnnealingLR
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.engine import EpochLoop
from limbeck_core.losses import KLDivergenceLoss
from limbeck_core.schedules import Complement
from limbeck_vision.data import Digits, small_shifts
from limbeck_vision.methods.data_pruning import Pruned, PruningWeight
from limbeck_vision.models import ImageCall, resnet8_quarter

with read_base():
    from .._base_.digits import *

train_dataloader = dict(
    dataset=dict(
        type=Pruned,
        dataset=dict(type=Digits, train=True, channels=3, label_noise=0.0, transform=dict(type=small_shifts)),
        fraction=0.1,
        scores=None,
    ),
    batch_size=64,
)
model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet8_quarter, num_classes=10),
        checkpoint="work_dirs/digits_whole/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    task_weight=dict(type=Complement, schedule=dict(type=PruningWeight, fraction=0.1)),
    matches=dict(
        kd=dict(
            type=Match,
            loss=dict(type=KLDivergenceLoss, temperature=4.0),
            student="fc",
            teacher="fc",
            weight=dict(type=PruningWeight, fraction=0.1),
        ),
    ),
)
train_cfg = dict(type=EpochLoop, max_epochs=190, val_interval=190)
param_scheduler = dict(type=CosineAnnealingLR, T_max=190, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
# of 0.05 and 0.2 the better on 300 held-out training images, for every arm
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True))
