# Word-level distillation: cross-entropy and the forward divergence from the teacher on each token of the data's text.
#   limbeck train nlp/translation/marian_teacher               (once)
#   limbeck train nlp/translation/marian_word
#   limbeck test nlp/translation/marian_word --checkpoint work_dirs/marian_word/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Match, Tap, pretrained
from limbeck_core.losses import GeneralizedJSDLoss
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.language_models.distiller import TokenDistiller
from limbeck_nlp.models import transformer
from limbeck_nlp.translation import TranslationCall

with read_base():
    from .._base_.grammar_translations import *

model = dict(
    type=TokenDistiller,
    student=dict(
        type=transformer,
        task="seq2seq_lm",
        model_type="marian",
        vocab_size=457,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        dropout=0.1,
        scale_embedding=True,
        init_std=0.1,  # at the usual 0.02 a model this narrow hardly sees its words beside their positions
        pad_token_id=0,
        eos_token_id=6,
        decoder_start_token_id=0,
    ),
    teacher=dict(
        type=pretrained,
        model=dict(
            type=transformer,
            task="seq2seq_lm",
            model_type="marian",
            vocab_size=457,
            d_model=64,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            max_position_embeddings=64,
            dropout=0.1,
            scale_embedding=True,
            init_std=0.1,  # at the usual 0.02 a model this narrow hardly sees its words beside their positions
            pad_token_id=0,
            eos_token_id=6,
            decoder_start_token_id=0,
        ),
        checkpoint="work_dirs/marian_teacher/student.pth",
    ),
    call=dict(type=TranslationCall, max_new_tokens=32),
    task_loss=dict(type=TokenCrossEntropyLoss, smoothing=0.1),
    task_weight=0.5,
    matches=dict(
        tokens=dict(
            type=Match,
            loss=dict(type=GeneralizedJSDLoss, beta=0.0),
            student=dict(type=Tap, path="", pick="logits"),
            teacher=dict(type=Tap, path="", pick="logits"),
            weight=0.5,
        ),
    ),
)

# one rate for all nlp/translation/marian_*, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=3e-3, weight_decay=0.01))
