# SSLD on digits: soft labels alone, on 100 images and the 60 of each class that the teacher is surest of.
#   limbeck train vision/ssld/digits_ssld_teacher                 (once)
#   limbeck train vision/ssld/digits
#   limbeck test vision/ssld/digits --checkpoint work_dirs/digits/student.pth
from mmengine.config import read_base
from torch.optim import SGD

from limbeck_core import Distiller, Match, pretrained
from limbeck_core.engine import held_out_part
from limbeck_vision.data import Digits, small_shifts
from limbeck_vision.methods.ssld import SymmetricKLLoss, TopPerClass, WithDistractors, WithoutLabels
from limbeck_vision.models import ImageCall, resnet8, resnet8_quarter

with read_base():
    from .._base_.digits_pool import *

train_dataloader = dict(
    dataset=dict(
        type=WithoutLabels,
        datasets=[
            dict(
                type=held_out_part,
                dataset=dict(
                    type=held_out_part,
                    dataset=dict(type=Digits, train=True, channels=3),
                    count=300,
                    held_out=False,
                ),
                count=100,
                held_out=True,
                seed=1,
            ),
            dict(
                type=TopPerClass,
                dataset=dict(
                    type=WithDistractors,
                    dataset=dict(
                        type=held_out_part,
                        dataset=dict(
                            type=held_out_part,
                            dataset=dict(type=Digits, train=True, channels=3),
                            count=300,
                            held_out=False,
                        ),
                        count=100,
                        held_out=False,
                        seed=1,
                    ),
                ),
                teacher=dict(
                    type=pretrained,
                    model=dict(type=resnet8, num_classes=10, normalization=None),
                    checkpoint="work_dirs/digits_ssld_teacher/student.pth",
                ),
                per_class=60,
            ),
        ],
        transform=dict(type=small_shifts),
    ),
    batch_size=64,
)
model = dict(
    type=Distiller,
    student=dict(type=resnet8_quarter, num_classes=10),
    teacher=dict(
        type=pretrained,
        model=dict(type=resnet8, num_classes=10, normalization=None),
        checkpoint="work_dirs/digits_ssld_teacher/student.pth",
    ),
    call=dict(type=ImageCall),
    matches=dict(ssld=dict(type=Match, loss=dict(type=SymmetricKLLoss), student="fc", teacher="fc")),
)
# rate: the best of 0.05, 0.1 and 0.2 on held-out training images; the same search was made for every arm
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
