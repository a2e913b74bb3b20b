# PS-KD on Multi30k: a model of 3+3 layers and width 256 learns from itself as it was an epoch ago.
#   limbeck train nlp/translation/multi30k_past --data-root ROOT
#   limbeck test nlp/translation/multi30k_past --checkpoint work_dirs/multi30k_past/student.pth --data-root ROOT
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Match, Tap
from limbeck_core.losses import GeneralizedJSDLoss
from limbeck_core.schedules import Complement
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.language_models.distiller import TokenDistiller
from limbeck_nlp.language_models.past import PastModel, PastWeight
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
    teacher=dict(type=PastModel),
    call=dict(type=TranslationCall, beams=5, max_new_tokens=64),
    task_loss=dict(type=TokenCrossEntropyLoss, smoothing=0.1),
    task_weight=dict(type=Complement, schedule=dict(type=PastWeight, value=0.7)),
    matches=dict(
        # cross-entropy against the past self but for that one's entropy, which has no gradient
        past=dict(
            type=Match,
            loss=dict(type=GeneralizedJSDLoss, beta=0.0),
            student=dict(type=Tap, path="", pick="logits"),
            teacher=dict(type=Tap, path="", pick="logits"),
            weight=dict(type=PastWeight, value=0.7),
        ),
    ),
)

# as is common for Transformers on small parallel corpora; nothing here was tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=5e-4, betas=(0.9, 0.98), weight_decay=1e-4))
