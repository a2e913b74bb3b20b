# GKD: half of the batches are what the student writes itself, compared with the teacher token by token.
#   limbeck train nlp/grammar/lm_teacher                (once)
#   limbeck train nlp/grammar/lm_on_policy
#   limbeck test nlp/grammar/lm_on_policy --checkpoint work_dirs/lm_on_policy/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Match, Tap, pretrained
from limbeck_core.calls import MappingCall
from limbeck_core.losses import GeneralizedJSDLoss
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.language_models.distiller import LanguageModelDistiller
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
    teacher=dict(
        type=pretrained,
        model=dict(
            type=transformer,
            task="causal_lm",
            model_type="llama",
            vocab_size=160,
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=64,
            bos_token_id=5,
            eos_token_id=6,
            pad_token_id=0,
        ),
        checkpoint="work_dirs/lm_teacher/student.pth",
    ),
    call=dict(type=MappingCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
    task_weight=0.0,
    on_policy=0.5,
    max_new_tokens=16,
    matches=dict(
        tokens=dict(
            type=Match,
            loss=dict(type=GeneralizedJSDLoss, beta=0.5),
            student=dict(type=Tap, path="", pick="logits"),
            teacher=dict(type=Tap, path="", pick="logits"),
            weight=1.0,
        ),
    ),
)

# one rate for all nlp/grammar/lm_*, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=3e-3, weight_decay=0.01))
