# BERT of 2 layers and width 32 on the grammar's intents, with the relations of nlp/grammar/teacher (MiniLMv2).
#   limbeck train nlp/grammar/teacher                   (once)
#   limbeck train nlp/grammar/minilm
#   limbeck test nlp/grammar/minilm --checkpoint work_dirs/minilm/student.pth
from mmengine.config import read_base
from torch.nn import CrossEntropyLoss
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.calls import MappingCall
from limbeck_core.losses import SelfAttentionRelationLoss
from limbeck_nlp.models import transformer

with read_base():
    from .._base_.intents import *

model = dict(
    type=Distiller,
    student=dict(
        type=transformer,
        task="sequence_classification",
        model_type="bert",
        vocab_size=160,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        num_labels=8,
        initializer_range=0.1,
    ),
    teacher=dict(
        type=pretrained,
        model=dict(
            type=transformer,
            task="sequence_classification",
            model_type="bert",
            vocab_size=160,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=32,
            num_labels=8,
            initializer_range=0.1,
        ),
        checkpoint="work_dirs/teacher/student.pth",
    ),
    call=dict(type=MappingCall),
    task_loss=dict(type=CrossEntropyLoss),
    matches=dict(
        query=dict(
            type=Match,
            loss=dict(type=SelfAttentionRelationLoss, relation_heads=4),
            student="bert.encoder.layer.1.attention.self.query",
            teacher="bert.encoder.layer.1.attention.self.query",
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
        key=dict(
            type=Match,
            loss=dict(type=SelfAttentionRelationLoss, relation_heads=4),
            student="bert.encoder.layer.1.attention.self.key",
            teacher="bert.encoder.layer.1.attention.self.key",
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
        value=dict(
            type=Match,
            loss=dict(type=SelfAttentionRelationLoss, relation_heads=4),
            student="bert.encoder.layer.1.attention.self.value",
            teacher="bert.encoder.layer.1.attention.self.value",
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
    ),
)

# the rate of the plain student; not tuned for this one
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01))
