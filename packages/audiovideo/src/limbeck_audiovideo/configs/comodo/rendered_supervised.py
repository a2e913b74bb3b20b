# The same 1D CNN trained from scratch on the few labelled clips of the rendered pairs: what labels alone give.
#   python -m limbeck_audiovideo.rendered_pairs pairs
#   limbeck train audiovideo/comodo/rendered_supervised --data-root pairs
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_audiovideo.comodo import IMUClassifier, IMUConvNet
from limbeck_core import Distiller

with read_base():
    from .._base_.rendered_pairs import *

train_dataloader.dataset.table = "few.csv"
train_dataloader.dataset.with_video = False
train_dataloader.batch_size = 12
model = dict(
    type=Distiller,
    student=dict(type=IMUClassifier, encoder=dict(type=IMUConvNet, widths=(32, 64, 128)), num_classes=6),
    task_loss=dict(type=CrossEntropyLoss),
)
