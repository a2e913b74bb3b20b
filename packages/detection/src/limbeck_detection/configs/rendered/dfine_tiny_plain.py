# The control of detection/rendered/dfine_tiny: the same detector, no layer teaches another (the weight of ddf is 0).
#   python -m limbeck_detection.rendered shapes
#   limbeck train detection/rendered/dfine_tiny_plain --data-root shapes
#   limbeck test detection/rendered/dfine_tiny_plain --data-root shapes --checkpoint CHECKPOINT
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_detection.calls import DetectionCall
from limbeck_detection.dfine.criterion import DFINECriterion
from limbeck_detection.dfine.model import dfine_n

with read_base():
    from .._base_.rendered import *

model = dict(
    type=Distiller,
    student=dict(
        type=dfine_n,
        num_classes=3,
        encoder_dim=64,
        encoder_feedforward=128,
        decoder_dim=64,
        decoder_feedforward=128,
        points=(4, 4),
        num_queries=30,
        num_denoising=12,
        input_size=(96, 96),
    ),
    call=dict(type=DetectionCall),
    task_loss=dict(type=DFINECriterion, ddf_weight=0.0),
)
# of 4e-4 and 1e-3 the better one on 80 held-out training images; the other arm made the same search
optim_wrapper.update(optimizer=dict(type=AdamW, lr=4e-4, weight_decay=1e-4))
