# The control of nlp/ner/teacher: labels in English alone, no alignment.
#   limbeck train nlp/ner/teacher_plain
#   limbeck test nlp/ner/teacher_plain --checkpoint work_dirs/teacher_plain/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_core.calls import MappingCall
from limbeck_nlp.data import pad_batch
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer
from limbeck_nlp.ner import GrammarEntities

with read_base():
    from .._base_.grammar_entities import *

train_dataloader = dict(
    dataset=dict(type=GrammarEntities, size=2000, seed=40), batch_size=32, collate_fn=dict(type=pad_batch)
)
model = dict(
    type=Distiller,
    student=dict(
        type=transformer,
        task="token_classification",
        model_type="bert",
        vocab_size=1000,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=32,
        num_labels=7,
        initializer_range=0.1,
        output_hidden_states=True,
    ),
    call=dict(type=MappingCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
)

# not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01), clip_grad=dict(max_norm=1.0))
