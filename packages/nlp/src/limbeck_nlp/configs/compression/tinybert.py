# TinyBERT's first step: BERT-base into 4 layers of width 312, on your own text without labels.
#   limbeck train nlp/compression/tinybert --data-root DATA
# weights/bert-base-uncased is your own local folder, as save_pretrained writes it.
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap
from limbeck_core.adapters import LinearAdapter
from limbeck_core.calls import MappingCall
from limbeck_core.losses import AttentionMSELoss, HiddenStateMSELoss
from limbeck_nlp.encoder_compression import AttentionScores, EachLayer, SumOverLayers
from limbeck_nlp.models import transformer

with read_base():
    from .._base_.lines import *

model = dict(
    type=Distiller,
    student=dict(
        type=transformer,
        task="encoder",
        model_type="bert",
        vocab_size=30522,
        hidden_size=312,
        num_hidden_layers=4,
        num_attention_heads=12,
        intermediate_size=1200,
        output_hidden_states=True,
    ),
    teacher=dict(
        type=transformer,
        task="encoder",
        model_type="bert",
        weights="weights/bert-base-uncased",
        output_hidden_states=True,
    ),
    call=dict(type=MappingCall, labels=None),
    matches=dict(
        attention=dict(
            type=Match,
            loss=dict(type=SumOverLayers, loss=dict(type=AttentionMSELoss)),
            student=[f"encoder.layer.{i}.attention.self.{x}" for i in (0, 1, 2, 3) for x in ("query", "key")],
            teacher=[f"encoder.layer.{i}.attention.self.{x}" for i in (2, 5, 8, 11) for x in ("query", "key")],
            adapter=dict(type=EachLayer, adapters=dict(type=AttentionScores, heads=12), groups=2),
            teacher_adapter=dict(type=EachLayer, adapters=dict(type=AttentionScores, heads=12), groups=2),
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
        hidden=dict(
            type=Match,
            loss=dict(type=SumOverLayers, loss=dict(type=HiddenStateMSELoss)),
            student=[dict(type=Tap, path="", pick=("hidden_states", i)) for i in (0, 1, 2, 3, 4)],
            teacher=[dict(type=Tap, path="", pick=("hidden_states", i)) for i in (0, 3, 6, 9, 12)],
            adapter=dict(type=EachLayer, adapters=dict(type=LinearAdapter, in_features=312, out_features=768)),
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
    ),
)

# a choice of ours; not run here
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-4, weight_decay=0.01))
