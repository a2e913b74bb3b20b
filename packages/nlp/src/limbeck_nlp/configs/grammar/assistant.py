# A teacher assistant on the grammar: MiniLM into the teacher's depth and the student's width.
#   limbeck train nlp/grammar/masked_teacher            (once)
#   limbeck train nlp/grammar/assistant
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.calls import MappingCall
from limbeck_core.losses import SelfAttentionRelationLoss
from limbeck_nlp.models import transformer

with read_base():
    from .._base_.grammar_text import *

model = dict(
    type=Distiller,
    student=dict(
        type=transformer,
        task="masked_lm",
        model_type="bert",
        vocab_size=160,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.1,
    ),
    teacher=dict(
        type=pretrained,
        model=dict(
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
        checkpoint="work_dirs/masked_teacher/student.pth",
    ),
    call=dict(type=MappingCall, labels=None),
    matches=dict(
        attention=dict(
            type=Match,
            loss=dict(type=SelfAttentionRelationLoss, relation_heads=4),
            student="bert.encoder.layer.3.attention.self.query",
            teacher="bert.encoder.layer.3.attention.self.query",
            extras=dict(
                student_keys=dict(type=Tap, path="bert.encoder.layer.3.attention.self.key", of="student"),
                teacher_keys=dict(type=Tap, path="bert.encoder.layer.3.attention.self.key", of="teacher"),
                mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask"),
            ),
        ),
        value=dict(
            type=Match,
            loss=dict(type=SelfAttentionRelationLoss, relation_heads=4),
            student="bert.encoder.layer.3.attention.self.value",
            teacher="bert.encoder.layer.3.attention.self.value",
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
    ),
)

# one rate for all masked and plain text of nlp/grammar, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01))
