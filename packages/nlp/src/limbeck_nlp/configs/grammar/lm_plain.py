# A Llama of 1 layer and width 24 on sentences of the grammar, by cross-entropy: the student alone.
#   limbeck train nlp/grammar/lm_plain
#   limbeck test nlp/grammar/lm_plain --checkpoint work_dirs/lm_plain/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_core.calls import MappingCall
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer

with read_base():
    from .._base_.grammar_lines import *

model = dict(
    type=Distiller,
    student=dict(
        type=transformer,
        task="causal_lm",
        model_type="llama",
        vocab_size=160,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        bos_token_id=5,
        eos_token_id=6,
        pad_token_id=0,
    ),
    call=dict(type=MappingCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
)

# one rate for all nlp/grammar/lm_*, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=3e-3, weight_decay=0.01))
