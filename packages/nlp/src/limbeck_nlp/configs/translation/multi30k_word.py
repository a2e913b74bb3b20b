# Word-level distillation on Multi30k: 3+3 layers of width 256 from 6+6 of 512.
#   limbeck train nlp/translation/multi30k_teacher --data-root ROOT               (once)
#   limbeck train nlp/translation/multi30k_word --data-root ROOT
#   limbeck test nlp/translation/multi30k_word --checkpoint work_dirs/multi30k_word/student.pth --data-root ROOT
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Match, Tap, pretrained
from limbeck_core.losses import GeneralizedJSDLoss
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.language_models.distiller import TokenDistiller
from limbeck_nlp.models import transformer
from limbeck_nlp.translation import TranslationCall

with read_base():
    from .._base_.multi30k import *

model = dict(
    type=TokenDistiller,
    student=dict(
        type=transformer,
        task="seq2seq_lm",
        model_type="marian",
        vocab_size=8000,
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        max_position_embeddings=512,
        dropout=0.3,
        scale_embedding=True,
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
            vocab_size=8000,
            d_model=512,
            encoder_layers=6,
            decoder_layers=6,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=1024,
            decoder_ffn_dim=1024,
            max_position_embeddings=512,
            dropout=0.3,
            scale_embedding=True,
            pad_token_id=0,
            eos_token_id=6,
            decoder_start_token_id=0,
        ),
        checkpoint="work_dirs/multi30k_teacher/student.pth",
    ),
    call=dict(type=TranslationCall, beams=5, max_new_tokens=64),
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

# as is common for Transformers on small parallel corpora; nothing here was tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=5e-4, betas=(0.9, 0.98), weight_decay=1e-4))
