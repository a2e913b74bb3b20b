# MiniLM's teacher assistant: BERT-base into its own depth and width 384, on your own text without labels.
#   limbeck train nlp/compression/minilm_assistant --data-root DATA
# weights/bert-base-uncased is your own local folder, as save_pretrained writes it.
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap
from limbeck_core.calls import MappingCall
from limbeck_core.losses import SelfAttentionRelationLoss
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
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=1536,
    ),
    teacher=dict(
        type=transformer,
        task="encoder",
        model_type="bert",
        weights="weights/bert-base-uncased",
    ),
    call=dict(type=MappingCall, labels=None),
    matches=dict(
        attention=dict(
            type=Match,
            loss=dict(type=SelfAttentionRelationLoss, relation_heads=12),
            student="encoder.layer.11.attention.self.query",
            teacher="encoder.layer.11.attention.self.query",
            extras=dict(
                student_keys=dict(type=Tap, path="encoder.layer.11.attention.self.key", of="student"),
                teacher_keys=dict(type=Tap, path="encoder.layer.11.attention.self.key", of="teacher"),
                mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask"),
            ),
        ),
        value=dict(
            type=Match,
            loss=dict(type=SelfAttentionRelationLoss, relation_heads=12),
            student="encoder.layer.11.attention.self.value",
            teacher="encoder.layer.11.attention.self.value",
            extras=dict(mask=dict(type=Tap, path="inputs", of="batch", pick="attention_mask")),
        ),
    ),
)

# a choice of ours; not run here
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=5e-4, weight_decay=0.01))
