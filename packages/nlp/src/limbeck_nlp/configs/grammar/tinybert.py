# TinyBERT's first step on the grammar: embeddings, hidden states and attention scores of mapped layers, no labels.
#   limbeck train nlp/grammar/masked_teacher            (once)
#   limbeck train nlp/grammar/tinybert
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.adapters import LinearAdapter
from limbeck_core.calls import MappingCall
from limbeck_core.losses import AttentionMSELoss, HiddenStateMSELoss
from limbeck_nlp.encoder_compression import AttentionScores, EachLayer, SumOverLayers
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
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
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
    call=dict(type=MappingCall, labels=None),
    matches=dict(
        attention=dict(
            type=Match,
            loss=dict(type=SumOverLayers, loss=dict(type=AttentionMSELoss)),
            student=[f"bert.encoder.layer.{i}.attention.self.{x}" for i in (0, 1) for x in ("query", "key")],
            teacher=[f"bert.encoder.layer.{i}.attention.self.{x}" for i in (1, 3) for x in ("query", "key")],
            adapter=dict(type=EachLayer, adapters=dict(type=AttentionScores, heads=4), groups=2),
            teacher_adapter=dict(type=EachLayer, adapters=dict(type=AttentionScores, heads=4), groups=2),
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
        hidden=dict(
            type=Match,
            loss=dict(type=SumOverLayers, loss=dict(type=HiddenStateMSELoss)),
            student=[dict(type=Tap, path="", pick=("hidden_states", i)) for i in (0, 1, 2)],
            teacher=[dict(type=Tap, path="", pick=("hidden_states", i)) for i in (0, 2, 4)],
            adapter=dict(type=EachLayer, adapters=dict(type=LinearAdapter, in_features=32, out_features=64)),
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
    ),
)

# one rate for all masked and plain text of nlp/grammar, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01))
