# ProKD, stage 2: a student of the made-up language learns from the teacher and from labels that prototypes correct.
#   limbeck train nlp/ner/teacher       (once)
#   limbeck train nlp/ner/prokd
#   limbeck test nlp/ner/prokd --checkpoint work_dirs/prokd/student.pth
# Control, the teacher alone: --cfg-options model.self_training_weight=0
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Match, Tap, pretrained
from limbeck_core.calls import MappingCall
from limbeck_nlp.models import transformer
from limbeck_nlp.ner import ProbabilityMSELoss, ProKDDistiller

with read_base():
    from .._base_.grammar_entities import *

model = dict(
    type=ProKDDistiller,
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
    teacher=dict(
        type=pretrained,
        model=dict(
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
        checkpoint="work_dirs/teacher/student.pth",
    ),
    call=dict(type=MappingCall, labels=None),
    matches=dict(
        kd=dict(
            type=Match,
            loss=dict(type=ProbabilityMSELoss),
            student=dict(type=Tap, path="", pick="logits"),
            teacher=dict(type=Tap, path="", pick="logits"),
            weight=7.0,  # a sum over the classes instead of a mean
        ),
    ),
    num_classes=7,
    width=48,
    self_training_weight=1.0,
)

# not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01), clip_grad=dict(max_norm=1.0))
