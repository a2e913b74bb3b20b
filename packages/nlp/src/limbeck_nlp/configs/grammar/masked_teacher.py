# BERT of 4 layers and width 64 that guesses hidden words of the grammar: the teacher of the smaller encoders.
#   limbeck train nlp/grammar/masked_teacher
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_core.calls import MappingCall
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer

with read_base():
    from .._base_.grammar_masked import *

model = dict(
    type=Distiller,
    student=dict(
        type=transformer,
        task="masked_lm",
        model_type="bert",
        vocab_size=160,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
        initializer_range=0.1,
    ),
    call=dict(type=MappingCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
)

# one rate for all masked and plain text of nlp/grammar, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01))
