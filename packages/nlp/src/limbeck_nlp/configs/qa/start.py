# A small BERT on English questions of the grammar, by cross-entropy: where both arms of cross-lingual training start.
#   limbeck train nlp/qa/start
#   limbeck test nlp/qa/start --checkpoint work_dirs/start/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_nlp.data import pad_batch
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer
from limbeck_nlp.qa import GrammarQuestions, SpanCall

with read_base():
    from .._base_.grammar_questions import *

train_dataloader = dict(
    dataset=dict(type=GrammarQuestions, size=1500, seed=32, sentences=1, codes=("en",)),
    batch_size=24,
    collate_fn=dict(type=pad_batch),
)
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
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.0))
