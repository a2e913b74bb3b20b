# ESP-MedSAM, stage D: the aggregator, six controllers and the teacher's decoder in one model, tuned once more on masks.
#   limbeck train medical/esp_medsam/assembled --data-root DATA
#   limbeck test medical/esp_medsam/assembled --data-root DATA --checkpoint work_dirs/assembled/student.pth
# Whether the authors tune after assembling is not known. To put the parts together and no more:
#       --cfg-options train_cfg.max_epochs=1 optim_wrapper.optimizer.lr=0.0
from mmengine.config import read_base
from mmengine.optim import ExponentialLR
from torch.optim import Adam

from limbeck_core import Distiller
from limbeck_core.engine import EpochLoop
from limbeck_medical.esp_medsam import ESPMedSAM, SelfPromptingCall, SelfPromptingLoss, TinyViTEncoder, with_weights

with read_base():
    from .._base_.modalities import *

model = dict(
    type=Distiller,
    student=dict(
        type=with_weights,
        model=dict(type=ESPMedSAM, image_encoder=dict(type=TinyViTEncoder, controllers=6)),
        parts=dict(rest="work_dirs/medical_teacher/student.pth", image_encoder="work_dirs/aggregator/student.pth"),
        controllers=(
            "work_dirs/controller_dermoscopy/student.pth",
            "work_dirs/controller_x-ray/student.pth",
            "work_dirs/controller_ultrasound/student.pth",
            "work_dirs/controller_fundus/student.pth",
            "work_dirs/controller_microscopy/student.pth",
            "work_dirs/controller_colonoscopy/student.pth",
        ),
    ),
    call=dict(type=SelfPromptingCall),
    task_loss=dict(type=SelfPromptingLoss),
    freeze=("image_encoder",),
)
train_cfg = dict(type=EpochLoop, max_epochs=50)
optim_wrapper = dict(optimizer=dict(type=Adam, lr=1e-4))
param_scheduler = dict(type=ExponentialLR, gamma=0.98)
