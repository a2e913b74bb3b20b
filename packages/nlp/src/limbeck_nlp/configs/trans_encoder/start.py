# The bi-encoder that the cycle starts from: each sentence against itself under dropout (SimCSE), no labels.
#   limbeck train nlp/trans_encoder/start
#   limbeck test nlp/trans_encoder/start --checkpoint work_dirs/start/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap
from limbeck_core.calls import MappingCall
from limbeck_nlp.models import transformer
from limbeck_nlp.trans_encoder import BiEncoder, InBatchContrastLoss

with read_base():
    from .._base_.grammar_pairs import *

train_dataloader.dataset.same = True
train_dataloader.dataset.both_orders = False
model = dict(
    type=Distiller,
    student=dict(
        type=BiEncoder,
        encoder=dict(
            type=transformer,
            task="encoder",
            model_type="bert",
            vocab_size=160,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
            max_position_embeddings=64,
            initializer_range=0.1,
        ),
    ),
    student_view="pair",
    call=dict(type=MappingCall, labels=None),
    matches=dict(
        contrast=dict(
            type=Match,
            loss=dict(type=InBatchContrastLoss),
            student=dict(type=Tap, path="", pick=("embeddings", 0)),
            teacher=dict(type=Tap, path="", pick=("embeddings", 1), of="student"),
        ),
    ),
)

optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.01))
