# The paper's recipe: multilingual BERT, already trained on English SQuAD, on XQuAD in 36 pairs of languages an id.
# Put the start into checkpoints/mbert-qa-en (as save_pretrained writes it, tokenizer included), XQuAD's files into
# data/xquad and MLQA's development files (dev-context-X-question-X.json) into data/mlqa.
#   limbeck train nlp/qa/mbert_xquad
#   limbeck test nlp/qa/mbert_xquad --checkpoint work_dirs/mbert_xquad/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Match, Tap
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.language_models.past import PastModel
from limbeck_nlp.models import transformer
from limbeck_nlp.qa import GenerationsDistiller, SpanCall, SpanDistillationLoss

with read_base():
    from .._base_.xquad_mlqa import *

model = dict(
    type=GenerationsDistiller,
    student=dict(
        type=transformer,
        task="question_answering",
        model_type="bert",
        weights="checkpoints/mbert-qa-en",
        vocab_size=119547,
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

optim_wrapper = dict(
    optimizer=dict(type=AdamW, lr=5e-5, weight_decay=0.0, eps=1e-8),
    clip_grad=dict(max_norm=1.0),
    accumulative_counts=4,
)
