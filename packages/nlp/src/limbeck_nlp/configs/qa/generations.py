# Cross-lingual questions of the grammar, the student taught by itself of the epoch before as far as that one is right.
#   limbeck train nlp/qa/start       (once)
#   limbeck train nlp/qa/generations --cfg-options +load_from=work_dirs/start/student.pth
#   limbeck test nlp/qa/generations --checkpoint work_dirs/generations/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Match, Tap
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.language_models.past import PastModel
from limbeck_nlp.models import transformer
from limbeck_nlp.qa import GenerationsDistiller, SpanCall, SpanDistillationLoss

with read_base():
    from .._base_.grammar_questions import *

model = dict(
    type=GenerationsDistiller,
    student=dict(
        type=transformer,
        task="question_answering",
        model_type="bert",
        vocab_size=1000,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        initializer_range=0.1,
    ),
    teacher=dict(type=PastModel),
    call=dict(type=SpanCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
    matches=dict(
        past=dict(
            type=Match,
            loss=dict(type=SpanDistillationLoss, temperature=2.0, k=10, tolerance=5),
            student=(
                dict(type=Tap, path="", pick="start_logits"),
                dict(type=Tap, path="", pick="end_logits"),
            ),
            teacher=(
                dict(type=Tap, path="", pick="start_logits"),
                dict(type=Tap, path="", pick="end_logits"),
            ),
        ),
    ),
)

# as nlp/qa/plain, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.0), clip_grad=dict(max_norm=1.0))
