# GPT-2 small fine-tuned on CLINC150's texts: the teacher of nlp/ood/clinc150_mlkd, and a method by itself.
#   limbeck train nlp/ood/clinc150_teacher --data-root DATA
#   limbeck test nlp/ood/clinc150_teacher --checkpoint work_dirs/clinc150_teacher/student.pth --data-root DATA
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_core.calls import MappingCall
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer

with read_base():
    from .._base_.clinc150 import *

model = dict(
    type=Distiller,
    student=dict(type=transformer, task="causal_lm", model_type="gpt2", weights="weights/gpt2"),
    call=dict(type=MappingCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
)

# the released code also stops after the first epoch whose mean loss is higher than the one before
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=5e-5, weight_decay=0.0))
