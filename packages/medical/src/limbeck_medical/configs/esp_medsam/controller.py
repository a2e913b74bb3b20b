# ESP-MedSAM, stage C: the medical teacher's embedding teaches the controller of one modality, one run for each.
#   limbeck train medical/esp_medsam/controller --data-root DATA --work-dir work_dirs/controller_dermoscopy
#   limbeck train medical/esp_medsam/controller --data-root DATA --work-dir work_dirs/controller_ultrasound \
#       --cfg-options "train_dataloader.dataset.only=['ultrasound']" "val_dataloader.dataset.only=['ultrasound']"
#   limbeck test medical/esp_medsam/controller --data-root DATA --checkpoint work_dirs/controller_dermoscopy/student.pth
from mmengine.config import read_base
from mmengine.optim import ExponentialLR
from torch.optim import Adam

from limbeck_core import Distiller, Match
from limbeck_core.engine import EpochLoop
from limbeck_core.losses import HintLoss
from limbeck_medical.esp_medsam import ESPMedSAM, SelfPromptingCall, TinyViTEncoder, sam_vit_h, with_weights

with read_base():
    from .._base_.modalities import *

_teacher = "work_dirs/medical_teacher/student.pth"

train_dataloader.dataset.only = ("dermoscopy",)
val_dataloader.dataset.only = ("dermoscopy",)
test_dataloader.dataset.only = ("dermoscopy",)
model = dict(
    type=Distiller,
    student=dict(
        type=with_weights,
        model=dict(type=ESPMedSAM, image_encoder=dict(type=TinyViTEncoder, controllers=1, controllers_only=True)),
        parts=dict(rest=_teacher, image_encoder="work_dirs/aggregator/student.pth"),
        new=("med_",),
    ),
    teacher=dict(
        type=with_weights,
        model=dict(type=ESPMedSAM, image_encoder=dict(type=sam_vit_h, controllers=6)),
        parts=dict(rest=_teacher),
    ),
    call=dict(type=SelfPromptingCall, part="image_encoder"),
    freeze=("prompt_encoder", "patch_prompter", "mask_query", "mask_decoder"),
    matches=dict(
        embedding=dict(type=Match, loss=dict(type=HintLoss), student="image_encoder", teacher="image_encoder")
    ),
)
train_cfg = dict(type=EpochLoop, max_epochs=200, val_interval=10)
optim_wrapper = dict(optimizer=dict(type=Adam, lr=5e-4))
param_scheduler = dict(type=ExponentialLR, gamma=0.98)
