# A tenth of CIFAR-100, kept by chance: ResNet-32 distilled from a ResNet-32 of all of it. DATA holds cifar-100-python/.
# The paper's optimiser and temperature were not established: recipe of the CRD and DKD tables, temperature 4.
# Equal epochs; for as many steps as the whole has, set train_cfg.max_epochs=2400 and the milestones times 10.
#   limbeck train vision/plain/resnet32_cifar100 --data-root DATA                 (the teacher, once)
#   limbeck train vision/data_pruning/resnet32_cifar100_tenth --data-root DATA
#   python -m limbeck_vision.methods.data_pruning.scoring vision/plain/resnet32_cifar100 --score forgetting \
#       --data-root DATA      (then train_dataloader.dataset.scores=work_dirs/data_pruning/scores.npz)
#   limbeck test vision/data_pruning/resnet32_cifar100_tenth --data-root DATA \
#       --checkpoint work_dirs/resnet32_cifar100_tenth/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import KLDivergenceLoss
from limbeck_core.schedules import Complement
from limbeck_vision.data import CIFAR100, crop_and_flip
from limbeck_vision.methods.data_pruning import Pruned, PruningWeight
from limbeck_vision.models import ImageCall, resnet32

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

train_dataloader = dict(
    dataset=dict(
        type=Pruned,
        dataset=dict(type=CIFAR100, root=".", train=True, transform=dict(type=crop_and_flip)),
        fraction=0.1,
        scores=None,
    ),
    batch_size=64,
    num_workers=2,
)
model = dict(
    type=Distiller,
    student=dict(type=resnet32, num_classes=100),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet32, num_classes=100),
        checkpoint="work_dirs/resnet32_cifar100/student.pth",
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
