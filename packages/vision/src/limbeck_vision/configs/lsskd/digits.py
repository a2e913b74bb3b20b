# LSSKD on digits with 10 labels a class: three branches tell digit and rotation at once. Control: digits_plain.
#   limbeck train vision/lsskd/digits
#   limbeck test vision/lsskd/digits --checkpoint work_dirs/lsskd_digits/student.pth
#   limbeck compare vision/lsskd/digits_plain vision/lsskd/digits
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import SGD

from limbeck_vision.methods.lsskd import LayeredDistiller
from limbeck_vision.models import resnet8

with read_base():
    from .._base_.digits import *

train_dataloader.update(batch_size=25)
train_dataloader["dataset"].update(label_noise=0.0, labels_per_class=10)

model = dict(
    type=LayeredDistiller,
    student=dict(type=resnet8, num_classes=10, normalization=None),
    num_samples=1200,  # ids are those of the whole training set
    task_loss=dict(type=CrossEntropyLoss),
)

train_cfg.update(max_epochs=60)
param_scheduler.update(T_max=60)
# of 0.025, 0.05, 0.1 and 0.2 the best on 40 held-out training images, 3 seeds; the same search for both
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True))
work_dir = "work_dirs/lsskd_digits"
