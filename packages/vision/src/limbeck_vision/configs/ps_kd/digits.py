# PS-KD of ResNet-8 on 600 digits, 30 % of them with a wrong label. No teacher. Control: digits_plain.
#   limbeck train vision/ps_kd/digits
#   limbeck test vision/ps_kd/digits --checkpoint work_dirs/ps_kd_digits/student.pth
#   limbeck compare vision/ps_kd/digits_plain vision/ps_kd/digits
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_core import Distiller, Match, PastSelf
from limbeck_core.losses import SoftTargetCrossEntropyLoss
from limbeck_core.schedules import Complement, WarmUp
from limbeck_vision.models import ImageCall, resnet8

with read_base():
    from .._base_.digits import *

train_dataloader["dataset"].update(train_size=600, label_noise=0.3)
val_dataloader["dataset"].update(train_size=600)
test_dataloader = val_dataloader

model = dict(
    type=Distiller,
    student=dict(type=resnet8, num_classes=10, normalization=None),
    teacher=dict(past=dict(type=PastSelf, num_samples=600, num_classes=10, logits="fc")),
    call=dict(type=ImageCall),
    task_loss=dict(type=CrossEntropyLoss),
    task_weight=dict(type=Complement, schedule=dict(type=WarmUp, value=0.8)),
    matches=dict(
        ps_kd=dict(
            type=Match,
            loss=dict(type=SoftTargetCrossEntropyLoss),
            student="fc",
            teacher="",
            weight=dict(type=WarmUp, value=0.8),
        ),
    ),
)

train_cfg.update(max_epochs=40)
param_scheduler.update(T_max=40)
# of 0.025 to 0.4 the best on 150 held-out training images, 3 seeds; the same search for both
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True))
work_dir = "work_dirs/ps_kd_digits"
