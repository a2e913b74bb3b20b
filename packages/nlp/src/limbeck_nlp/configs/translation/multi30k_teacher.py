# A Marian model of 6+6 layers and width 512 on Multi30k, English to German, by label-smoothed cross-entropy.
#   limbeck train nlp/translation/multi30k_teacher --data-root ROOT
#   limbeck test nlp/translation/multi30k_teacher --checkpoint work_dirs/multi30k_teacher/student.pth --data-root ROOT
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer
from limbeck_nlp.translation import TranslationCall

with read_base():
    from .._base_.multi30k import *

model = dict(
    type=Distiller,
    student=dict(
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
    call=dict(type=TranslationCall, beams=5, max_new_tokens=64),
    task_loss=dict(type=TokenCrossEntropyLoss, smoothing=0.1),
)

# as is common for Transformers on small parallel corpora; nothing here was tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=5e-4, betas=(0.9, 0.98), weight_decay=1e-4))
