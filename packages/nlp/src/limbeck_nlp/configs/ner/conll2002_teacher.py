# ProKD, stage 1, on CoNLL-2002: labels in Spanish, prototypes of Spanish and of Dutch without labels drawn together.
#   limbeck train nlp/ner/conll2002_teacher --data-root ROOT
#   limbeck test nlp/ner/conll2002_teacher --checkpoint work_dirs/conll2002_teacher/student.pth --data-root ROOT
# Control, labels in Spanish alone: --cfg-options model.alignment_weight=0
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core.calls import MappingCall
from limbeck_nlp.data import pad_batch
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer
from limbeck_nlp.ner import AlignedTeacherDistiller, SourceAndTarget

with read_base():
    from .._base_.conll2002 import *

train_dataloader = dict(
    dataset=dict(
        type=SourceAndTarget,
        source=dict(**columns, file="esp.train.gz"),
        target=dict(**columns, file="ned.train.gz", labelled=False),
    ),
    batch_size=32,
    num_workers=2,
    collate_fn=dict(type=pad_batch),
)
model = dict(
    type=AlignedTeacherDistiller,
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
    call=dict(type=MappingCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
    num_classes=9,
    width=768,
    alignment_weight=0.5,
)

# usual for fine-tuning; not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=5e-5, weight_decay=0.01), clip_grad=dict(max_norm=1.0))
