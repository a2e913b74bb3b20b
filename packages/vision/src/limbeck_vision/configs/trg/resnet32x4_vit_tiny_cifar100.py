# TRG from ResNet-32x4 to a tiny vision transformer on CIFAR-100: the teacher lends its local bias.
# Weights, tokens, neighbours and temperatures are our choices: the paper's are not known to us.
# DATA holds cifar-100-python/.
#   limbeck train vision/plain/resnet32x4_cifar100 --data-root DATA      (the teacher, once)
#   limbeck train vision/trg/resnet32x4_vit_tiny_cifar100 --data-root DATA \
#       --cfg-options model.teacher.checkpoint=work_dirs/resnet32x4_cifar100/student.pth
#   limbeck test vision/trg/resnet32x4_vit_tiny_cifar100 --data-root DATA \
#       --checkpoint work_dirs/resnet32x4_vit_tiny_cifar100/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import AdamW

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.losses import KLDivergenceLoss
from limbeck_vision.methods.trg import InnerContextLoss, TokenCall, TokenContrastLoss, TokenGraphLoss
from limbeck_vision.models import resnet32x4, timm_model

with read_base():
    from .._base_.cifar100 import *
    from .._base_.epochs_240 import *

model = dict(
    type=Distiller,
    student=dict(
        type=timm_model, name="vit_tiny_patch16_224", num_classes=100, img_size=32, patch_size=4, drop_path_rate=0.1
    ),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet32x4, num_classes=100),
        checkpoint="work_dirs/resnet32x4_cifar100/student.pth",
    ),
    call=dict(type=TokenCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        kd=dict(type=Match, loss=dict(type=KLDivergenceLoss, temperature=4.0), student="head", teacher="fc"),
        inner=dict(
            type=Match, loss=dict(type=InnerContextLoss, student_prefix_tokens=1), student="norm", teacher="layer3"
        ),
        local=dict(
            type=Match, loss=dict(type=TokenGraphLoss, student_prefix_tokens=1), student="norm", teacher="layer3"
        ),
        contrast=dict(
            type=Match,
            loss=dict(type=TokenContrastLoss, student_width=192, teacher_width=256, student_prefix_tokens=1),
            student="norm",
            teacher="layer3",
            weight=0.1,
        ),
    ),
)
# SGD at the rate of the convolutional pairs does not train a transformer
optim_wrapper = dict(optimizer=dict(_delete_=True, type=AdamW, lr=5e-4, weight_decay=0.05))
