# SLA on 200 digits: class and quarter turn told together, four views averaged in the test.
#   limbeck train vision/sla/digits
#   limbeck test vision/sla/digits --checkpoint work_dirs/digits/student.pth
#   the same weights, seeing each test image once: --cfg-options model.student.inference=single
from mmengine.config import read_base
from torch.optim import SGD

from limbeck_core import Distiller
from limbeck_vision.methods.sla import LabelAugmentationLoss, LabelAugmented
from limbeck_vision.models import ImageCall, resnet8

with read_base():
    from .._base_.digits_few import *

model = dict(
    type=Distiller,
    student=dict(
        type=LabelAugmented,
        backbone=dict(type=resnet8, num_classes=10, normalization=None),
        num_classes=10,
        transformation="rotation",
        inference="aggregated",
    ),
    call=dict(type=ImageCall),
    task_loss=dict(type=LabelAugmentationLoss, views=4),
)
# rate: the best of 0.05, 0.1 and 0.2 on held-out training images; the same search was made for every arm
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True))
