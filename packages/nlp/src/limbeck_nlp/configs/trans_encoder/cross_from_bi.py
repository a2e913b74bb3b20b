# A cross-encoder learns the bi-encoder's scores of unlabelled pairs (binary cross-entropy, one pass in the paper).
#   limbeck train nlp/trans_encoder/start               (once; or any bi-encoder of an earlier cycle)
#   limbeck train nlp/trans_encoder/cross_from_bi
#   limbeck test nlp/trans_encoder/cross_from_bi --checkpoint work_dirs/cross_from_bi/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.calls import MappingCall
from limbeck_nlp.models import transformer
from limbeck_nlp.trans_encoder import BiEncoder, CrossEncoder, pair_score_cross_entropy_loss

with read_base():
    from .._base_.grammar_pairs import *

model = dict(
    type=Distiller,
    student=dict(
        type=CrossEncoder,
        classifier=dict(
            type=transformer,
            task="sequence_classification",
            model_type="bert",
            vocab_size=160,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
            max_position_embeddings=64,
            initializer_range=0.1,
            num_labels=1,
        ),
    ),
    teacher=dict(
        type=pretrained,
        model=dict(
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
        checkpoint="work_dirs/start/student.pth",
    ),
    teacher_view="pair",
    call=dict(type=MappingCall, labels=None),
    matches=dict(
        scores=dict(
            type=Match,
            loss=pair_score_cross_entropy_loss,
            student=dict(type=Tap, path="", pick="logits"),
            teacher=dict(type=Tap, path="", pick="logits"),
        ),
    ),
)

optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01))
