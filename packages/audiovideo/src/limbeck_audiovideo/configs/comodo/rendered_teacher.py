# The video teacher of the rendered pairs: an action classifier, trained on labelled clips of other people.
#   python -m limbeck_audiovideo.rendered_pairs pairs
#   limbeck train audiovideo/comodo/rendered_teacher --data-root pairs
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss

from limbeck_audiovideo.comodo import SmallVideoNet
from limbeck_core import Distiller

with read_base():
    from .._base_.rendered_pairs import *

train_dataloader.dataset.table = "teacher.csv"
train_dataloader.batch_size = 40
train_cfg.max_epochs = 20
train_cfg.val_interval = 20
param_scheduler[1].T_max = 20
optim_wrapper.optimizer.lr = 3e-3
model = dict(
    type=Distiller,
    student=dict(type=SmallVideoNet, num_classes=6),
    student_view="video",
    task_loss=dict(type=CrossEntropyLoss),
)
val_dataloader = val_evaluator = val_cfg = None
test_dataloader = test_evaluator = test_cfg = None
