# ESP-MedSAM's architecture from labels alone, without a teacher: the control of the stages, and what uses their result.
#   limbeck train medical/esp_medsam/plain --data-root DATA
#   limbeck test medical/esp_medsam/plain --data-root DATA --checkpoint work_dirs/assembled/student.pth
#   limbeck predict medical/esp_medsam/plain --checkpoint work_dirs/assembled/student.pth PICTURE.png \
#       --cfg-options model.call.modality=2
from mmengine.config import read_base
from mmengine.optim import ExponentialLR
from torch.optim import Adam

from limbeck_core import Distiller
from limbeck_core.engine import EpochLoop
from limbeck_medical.esp_medsam import ESPMedSAM, SelfPromptingCall, SelfPromptingLoss, TinyViTEncoder, square_pictures
from limbeck_medical.predictor import VolumePredictor

with read_base():
    from .._base_.modalities import *

model = dict(
    type=Distiller,
    student=dict(type=ESPMedSAM, image_encoder=dict(type=TinyViTEncoder, controllers=6)),
    call=dict(type=SelfPromptingCall, modality=None),
    task_loss=dict(type=SelfPromptingLoss),
)
train_cfg = dict(type=EpochLoop, max_epochs=50)
optim_wrapper = dict(optimizer=dict(type=Adam, lr=1e-4))
param_scheduler = dict(type=ExponentialLR, gamma=0.98)
predictor = dict(type=VolumePredictor, preprocess=dict(type=square_pictures, size=1024))
