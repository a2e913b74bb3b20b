# ESP-MedSAM, stage B: SAM-H becomes the medical teacher; its controllers, prompts and decoder learn from masks.
#   limbeck train medical/esp_medsam/medical_teacher --data-root DATA
#   limbeck test medical/esp_medsam/medical_teacher --data-root DATA --checkpoint work_dirs/medical_teacher/student.pth
# checkpoints/sam_vit_h_4b8939.pth is Meta's file.
from mmengine.config import read_base
from mmengine.optim import ExponentialLR
from torch.optim import Adam

from limbeck_core import Distiller
from limbeck_core.engine import EpochLoop
from limbeck_medical.esp_medsam import ESPMedSAM, SelfPromptingCall, SelfPromptingLoss, sam_vit_h, with_weights

with read_base():
    from .._base_.modalities import *

model = dict(
    type=Distiller,
    student=dict(
        type=with_weights,
        model=dict(type=ESPMedSAM, image_encoder=dict(type=sam_vit_h, controllers=6, controllers_only=True)),
        parts=dict(rest="checkpoints/sam_vit_h_4b8939.pth"),
        new=("med_", "patch_prompter.", "mask_query."),
    ),
    call=dict(type=SelfPromptingCall),
    task_loss=dict(type=SelfPromptingLoss),
)
# UN-SAM's recipe, by authors of both; ESP-MedSAM's own for this stage is not known
train_cfg = dict(type=EpochLoop, max_epochs=50)
optim_wrapper = dict(optimizer=dict(type=Adam, lr=1e-4))
param_scheduler = dict(type=ExponentialLR, gamma=0.98)
