# The pretrained GPT-2, fine-tuned on sentences in order: the teacher of nlp/ood/grammar_mlkd, a method by itself.
#   limbeck train nlp/ood/grammar_pretrain            (once)
#   limbeck train nlp/ood/grammar_teacher
#   limbeck test nlp/ood/grammar_teacher --checkpoint work_dirs/grammar_teacher/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_core.calls import MappingCall
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer

with read_base():
    from .._base_.grammar_ood import *

model = dict(
    type=Distiller,
    student=dict(
        type=transformer,
        task="causal_lm",
        model_type="gpt2",
        vocab_size=160,
        n_embd=64,
        n_layer=4,
        n_head=4,
        n_positions=32,
        bos_token_id=5,
        eos_token_id=6,
    ),
    call=dict(type=MappingCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
)

# one rate for all nlp/ood/grammar_*, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01))
load_from = "work_dirs/grammar_pretrain/student.pth"
