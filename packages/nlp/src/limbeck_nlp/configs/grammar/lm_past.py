# PS-KD for text: the student learns from the label and from itself as it was an epoch ago; no teacher.
#   limbeck train nlp/grammar/lm_past
#   limbeck test nlp/grammar/lm_past --checkpoint work_dirs/lm_past/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Match, Tap
from limbeck_core.calls import MappingCall
from limbeck_core.losses import GeneralizedJSDLoss
from limbeck_core.schedules import Complement
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.language_models.distiller import LanguageModelDistiller
from limbeck_nlp.language_models.past import PastModel, PastWeight
from limbeck_nlp.models import transformer

with read_base():
    from .._base_.grammar_lines import *

model = dict(
    type=LanguageModelDistiller,
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
    teacher=dict(type=PastModel),
    call=dict(type=MappingCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
    task_weight=dict(type=Complement, schedule=dict(type=PastWeight, value=0.7)),
    matches=dict(
        # cross-entropy against the past self but for that one's entropy, which has no gradient
        past=dict(
            type=Match,
            loss=dict(type=GeneralizedJSDLoss, beta=0.0),
            student=dict(type=Tap, path="", pick="logits"),
            teacher=dict(type=Tap, path="", pick="logits"),
            weight=dict(type=PastWeight, value=0.7),
        ),
    ),
)

# one rate for all nlp/grammar/lm_*, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=3e-3, weight_decay=0.01))
