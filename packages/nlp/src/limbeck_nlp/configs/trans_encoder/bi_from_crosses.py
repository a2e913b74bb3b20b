# Mutual distillation: a bi-encoder learns the mean score of two cross-encoders (nlp/trans_encoder/cross_from_bis).
#   limbeck train nlp/trans_encoder/bi_from_crosses --cfg-options +load_from=work_dirs/start/student.pth
#   limbeck test nlp/trans_encoder/bi_from_crosses --checkpoint work_dirs/bi_from_crosses/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.calls import MappingCall
from limbeck_nlp.models import transformer
from limbeck_nlp.trans_encoder import BiEncoder, CrossEncoder, MeanScore, pair_score_mse_loss

with read_base():
    from .._base_.grammar_pairs import *

cross_encoder = dict(
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
)
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
    teacher=dict(
        one=dict(type=pretrained, model=cross_encoder, checkpoint="work_dirs/cross_from_bis/student.pth"),
        other=dict(type=pretrained, model=cross_encoder, checkpoint="work_dirs/cross_from_bis_other/student.pth"),
    ),
    student_view="pair",
    call=dict(type=MappingCall, labels=None),
    matches=dict(
        scores=dict(
            type=Match,
            loss=pair_score_mse_loss,
            student=dict(type=Tap, path="", pick="logits"),
            teacher=[
                dict(type=Tap, path="", pick="logits", of="one"),
                dict(type=Tap, path="", pick="logits", of="other"),
            ],
            teacher_adapter=dict(type=MeanScore, logits=True),
        ),
    ),
)

optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.01))
