# MLKD: a GPT-2 with random weights learns the fine-tuned one's distributions and nearest layers (arXiv 2211.11300).
#   limbeck train nlp/ood/grammar_pretrain            (once)
#   limbeck train nlp/ood/grammar_teacher             (once)
#   limbeck train nlp/ood/grammar_mlkd
#   limbeck test nlp/ood/grammar_mlkd --checkpoint work_dirs/grammar_mlkd/student.pth
# By distributions alone: --cfg-options model.matches.layers.weight=0.0
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.calls import MappingCall
from limbeck_core.losses import GeneralizedJSDLoss
from limbeck_nlp.models import transformer
from limbeck_nlp.ood import NearestLayersLoss

with read_base():
    from .._base_.grammar_ood import *

model = dict(
    type=Distiller,
    student=dict(
        type=transformer,
        task="causal_lm",
        model_type="gpt2",
        vocab_size=160,
        n_embd=64,
        n_layer=4,
        n_head=4,
        n_positions=32,
        bos_token_id=5,
        eos_token_id=6,
        output_hidden_states=True,
    ),
    teacher=dict(
        type=pretrained,
        model=dict(
            type=transformer,
            task="causal_lm",
            model_type="gpt2",
            vocab_size=160,
            n_embd=64,
            n_layer=4,
            n_head=4,
            n_positions=32,
            bos_token_id=5,
            eos_token_id=6,
            output_hidden_states=True,
        ),
        checkpoint="work_dirs/grammar_teacher/student.pth",
    ),
    call=dict(type=MappingCall, labels=None),
    matches=dict(
        prediction=dict(
            type=Match,
            loss=dict(type=GeneralizedJSDLoss, beta=0.0),
            student=dict(type=Tap, path="", pick="logits"),
            teacher=dict(type=Tap, path="", pick="logits"),
            weight=1.0,
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
        layers=dict(
            type=Match,
            loss=dict(type=NearestLayersLoss, student_width=64, nearest=2),
            student=[dict(type=Tap, path="", pick=("hidden_states", layer)) for layer in (1, 2, 3)],
            teacher=[dict(type=Tap, path="", pick=("hidden_states", layer)) for layer in (1, 2, 3, 4)],
            weight=1.0,
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
    ),
)

# one rate for all nlp/ood/grammar_*, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01))
