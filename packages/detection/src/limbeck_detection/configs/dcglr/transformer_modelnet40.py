# The base point transformer on ModelNet40's meshes without labels: ROOT/<class>/{train,test}/*.off; ROOT is --data-root
# or LIMBECK_DATA. Views, head, temperatures and optimiser are those of the code of the successor, POS-BERT.
#   limbeck train detection/dcglr/transformer_modelnet40 --data-root ModelNet40
#   limbeck test detection/dcglr/transformer_modelnet40 --data-root ModelNet40 \
#       --checkpoint work_dirs/transformer_modelnet40/student.pth
# Validation judges the teacher beside the student; its encoder is the one to keep, in teacher.pth.
from mmengine.config import read_base

from limbeck_core import Distiller, EMATeacher, Match
from limbeck_core.losses import DINOLoss
from limbeck_core.schedules import Cosine
from limbeck_detection.dcglr import CloudModel, ModelNet, NPairContrastLoss, PointTransformer

with read_base():
    from .._base_.shapes import *

train_dataloader.dataset = dict(type=ModelNet, root=".", part="train", points=1024, transform=dict(type=MultiCrop))
train_dataloader.update(batch_size=64, num_workers=8)
val_dataloader.dataset = dict(type=ModelNet, root=".", part="both", points=2048)
val_dataloader.update(num_workers=8)
train_cfg.update(max_epochs=300, val_interval=20)
optim_wrapper.optimizer.update(lr=5e-3)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, begin=0, end=20, by_epoch=True, convert_to_iter_based=True),
    dict(type=CosineAnnealingLR, T_max=280, eta_min=1e-5, begin=20, end=300, by_epoch=True, convert_to_iter_based=True),
]
model = dict(
    type=Distiller,
    student=dict(type=CloudModel, encoder=dict(type=PointTransformer)),
    teacher=dict(type=EMATeacher, momentum=dict(type=Cosine, start=0.996, end=1.0), mode="batch_stats", buffers="own"),
    teacher_view="large",
    matches=dict(
        views=dict(type=Match, loss=dict(type=DINOLoss, num_prototypes=512), student="head", teacher="head"),
        contrast=dict(
            type=Match,
            loss=dict(type=NPairContrastLoss, num_prototypes=512),
            student="head",
            teacher="head",
            weight=0.01,
        ),
    ),
)
