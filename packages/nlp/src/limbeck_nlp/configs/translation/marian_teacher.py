# A Marian model of 2+2 layers and width 64, by label-smoothed cross-entropy: the teacher of nlp/translation/marian_*.
#   limbeck train nlp/translation/marian_teacher
#   limbeck test nlp/translation/marian_teacher --checkpoint work_dirs/marian_teacher/student.pth
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer
from limbeck_nlp.translation import TranslationCall

with read_base():
    from .._base_.grammar_translations import *

model = dict(
    type=Distiller,
    student=dict(
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
    call=dict(type=TranslationCall, max_new_tokens=32),
    task_loss=dict(type=TokenCrossEntropyLoss, smoothing=0.1),
)

# one rate for all nlp/translation/marian_*, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=3e-3, weight_decay=0.01))
