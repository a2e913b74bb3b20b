# Guided self-distillation on digits, a later step: labels and the probabilities of the network before, mixed.
#   limbeck train vision/kernel_guidance/digits_first             (step 1, once)
#   limbeck train vision/kernel_guidance/digits                   (step 2; for step 3 give the next student as teacher)
#   python -m limbeck_vision.methods.kernel_guidance.procedure --steps 3      (all steps, with estimated weights)
#   limbeck test vision/kernel_guidance/digits --checkpoint work_dirs/digits/student.pth
from mmengine.config import read_base
from torch.optim import SGD

from limbeck_core import Match, pretrained
from limbeck_vision.methods.kernel_guidance import GuidedDistiller, LabelMSELoss, ProbabilityMSELoss
from limbeck_vision.models import ImageCall, resnet8_quarter

with read_base():
    from .._base_.digits import *

model = dict(
    type=GuidedDistiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet8_quarter, num_classes=10),
        checkpoint="work_dirs/digits_first/student.pth",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=LabelMSELoss),
    task_weight=0.35,
    matches=dict(
        guidance=dict(type=Match, loss=dict(type=ProbabilityMSELoss), student="fc", teacher="fc", weight=0.65),
    ),
    norm_weight=1e-4,
)
# of 0.3, 1, 3 and 10 the best on 300 held-out training images, judged by right labels
optim_wrapper = dict(optimizer=dict(type=SGD, lr=10.0, momentum=0.9))
