# Guided self-distillation on digits, step 1: labels alone, by the squared error of probabilities.
#   limbeck train vision/kernel_guidance/digits_first
#   limbeck test vision/kernel_guidance/digits_first --checkpoint work_dirs/digits_first/student.pth
from mmengine.config import read_base
from torch.optim import SGD

from limbeck_vision.methods.kernel_guidance import GuidedDistiller, LabelMSELoss
from limbeck_vision.models import ImageCall, resnet8_quarter

with read_base():
    from .._base_.digits import *

model = dict(
    type=GuidedDistiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    call=dict(type=ImageCall),
    task_loss=dict(type=LabelMSELoss),
    norm_weight=1e-4,
)
# of 0.3, 1, 3 and 10 the best on 300 held-out training images, judged by right labels
optim_wrapper = dict(optimizer=dict(type=SGD, lr=3.0, momentum=0.9))
