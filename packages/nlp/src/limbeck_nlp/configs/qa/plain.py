# Cross-lingual questions of the grammar by cross-entropy alone: the control of nlp/qa/generations.
#   limbeck train nlp/qa/start       (once)
#   limbeck train nlp/qa/plain --cfg-options +load_from=work_dirs/start/student.pth
#   limbeck test nlp/qa/plain --checkpoint work_dirs/plain/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer
from limbeck_nlp.qa import SpanCall

with read_base():
    from .._base_.grammar_questions import *

model = dict(
    type=Distiller,
    student=dict(
        type=transformer,
        task="question_answering",
        model_type="bert",
        vocab_size=1000,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        initializer_range=0.1,
    ),
    call=dict(type=SpanCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
)

# not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.0), clip_grad=dict(max_norm=1.0))
