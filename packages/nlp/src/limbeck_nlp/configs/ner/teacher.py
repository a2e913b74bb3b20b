# ProKD, stage 1: labels in English, and prototypes of English and a made-up language without labels drawn together.
#   limbeck train nlp/ner/teacher
#   limbeck test nlp/ner/teacher --checkpoint work_dirs/teacher/student.pth     (in the made-up language)
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core.calls import MappingCall
from limbeck_nlp.data import pad_batch
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer
from limbeck_nlp.ner import AlignedTeacherDistiller, GrammarEntities, SourceAndTarget

with read_base():
    from .._base_.grammar_entities import *

train_dataloader = dict(
    dataset=dict(
        type=SourceAndTarget,
        source=dict(type=GrammarEntities, size=2000, seed=40),
        target=dict(type=GrammarEntities, size=2000, seed=41, language="aa", labelled=False),
    ),
    batch_size=32,
    collate_fn=dict(type=pad_batch),
)
model = dict(
    type=AlignedTeacherDistiller,
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
    num_classes=7,
    width=48,
    alignment_weight=0.5,
)

# not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01), clip_grad=dict(max_norm=1.0))
