# DistilBERT on the grammar: hidden words, the teacher's distributions over them, and its last hidden states.
#   limbeck train nlp/grammar/masked_teacher            (once)
#   limbeck train nlp/grammar/distilbert
#   limbeck test nlp/grammar/distilbert --checkpoint work_dirs/distilbert/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.calls import MappingCall
from limbeck_core.losses import GeneralizedJSDLoss, HiddenStateCosineLoss
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
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
        initializer_range=0.1,
        output_hidden_states=True,
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
            output_hidden_states=True,
        ),
        checkpoint="work_dirs/masked_teacher/student.pth",
    ),
    call=dict(type=MappingCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
    task_weight=2.0,
    matches=dict(
        logits=dict(
            type=Match,
            loss=dict(type=GeneralizedJSDLoss, beta=0.0, temperature=2.0),
            student=dict(type=Tap, path="", pick="logits"),
            teacher=dict(type=Tap, path="", pick="logits"),
            weight=20.0,  # 5, times the temperature squared
        ),
        hidden=dict(
            type=Match,
            loss=dict(type=HiddenStateCosineLoss),
            student=dict(type=Tap, path="", pick=("hidden_states", -1)),
            teacher=dict(type=Tap, path="", pick=("hidden_states", -1)),
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
    ),
)

# one rate for all masked and plain text of nlp/grammar, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01))
