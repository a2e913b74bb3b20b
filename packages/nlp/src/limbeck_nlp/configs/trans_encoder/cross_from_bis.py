# Mutual distillation: a cross-encoder learns the mean score of two bi-encoders that began from other weights.
#   limbeck train nlp/trans_encoder/start
#   limbeck train nlp/trans_encoder/start --seed 1 --work-dir work_dirs/start_other
#   limbeck train nlp/trans_encoder/cross_from_bis
#   limbeck train nlp/trans_encoder/cross_from_bis --seed 1 --work-dir work_dirs/cross_from_bis_other
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller, Match, Tap, pretrained
from limbeck_core.calls import MappingCall
from limbeck_nlp.models import transformer
from limbeck_nlp.trans_encoder import BiEncoder, CrossEncoder, MeanScore, pair_score_cross_entropy_loss

with read_base():
    from .._base_.grammar_pairs import *

bi_encoder = dict(
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
)
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
        one=dict(type=pretrained, model=bi_encoder, checkpoint="work_dirs/start/student.pth"),
        other=dict(type=pretrained, model=bi_encoder, checkpoint="work_dirs/start_other/student.pth"),
    ),
    teacher_view="pair",
    call=dict(type=MappingCall, labels=None),
    matches=dict(
        scores=dict(
            type=Match,
            loss=pair_score_cross_entropy_loss,
            student=dict(type=Tap, path="", pick="logits"),
            teacher=[
                dict(type=Tap, path="", pick="logits", of="one"),
                dict(type=Tap, path="", pick="logits", of="other"),
            ],
            teacher_adapter=dict(type=MeanScore),
        ),
    ),
)

optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01))
