# ProKD, stage 2, on CoNLL-2002: a student of Dutch learns from the teacher and from labels that prototypes correct.
#   limbeck train nlp/ner/conll2002_teacher --data-root ROOT      (once)
#   limbeck train nlp/ner/conll2002_prokd --data-root ROOT
#   limbeck test nlp/ner/conll2002_prokd --checkpoint work_dirs/conll2002_prokd/student.pth --data-root ROOT
# Control, the teacher alone: --cfg-options model.self_training_weight=0
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Match, Tap, pretrained
from limbeck_core.calls import MappingCall
from limbeck_nlp.models import transformer
from limbeck_nlp.ner import ProbabilityMSELoss, ProKDDistiller

with read_base():
    from .._base_.conll2002 import *

model = dict(
    type=ProKDDistiller,
    student=dict(
        type=transformer,
        task="token_classification",
        model_type="bert",
        weights="weights/encoder",
        fresh=("classifier",),
        vocab_size=119547,
        num_labels=9,
        output_hidden_states=True,
    ),
    teacher=dict(
        type=pretrained,
        model=dict(
            type=transformer,
            task="token_classification",
            model_type="bert",
            weights="weights/encoder",
            fresh=("classifier",),
            vocab_size=119547,
            num_labels=9,
            output_hidden_states=True,
        ),
        checkpoint="work_dirs/conll2002_teacher/student.pth",
    ),
    call=dict(type=MappingCall, labels=None),
    matches=dict(
        kd=dict(
            type=Match,
            loss=dict(type=ProbabilityMSELoss),
            student=dict(type=Tap, path="", pick="logits"),
            teacher=dict(type=Tap, path="", pick="logits"),
            weight=9.0,  # a sum over the classes instead of a mean
        ),
    ),
    num_classes=9,
    width=768,
    self_training_weight=1.0,
)

# usual for fine-tuning; not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=5e-5, weight_decay=0.01), clip_grad=dict(max_norm=1.0))
