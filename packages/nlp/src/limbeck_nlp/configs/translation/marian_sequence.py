# Sequence-level distillation: plain training on what the teacher's beam search made of the training sources.
#   limbeck train nlp/translation/marian_teacher               (once)
#   python -m limbeck_nlp.translation nlp/translation/marian_teacher \
#       --checkpoint work_dirs/marian_teacher/student.pth --filter
#   limbeck train nlp/translation/marian_sequence
#   limbeck test nlp/translation/marian_sequence --checkpoint work_dirs/marian_sequence/student.pth
# With --interpolate the targets are those of the beam that are nearest to the data's own by BLEU; fine-tune on them at
# a lower rate: --cfg-options +load_from=work_dirs/marian_plain/student.pth optim_wrapper.optimizer.lr=1e-3
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer
from limbeck_nlp.translation import ParallelText, TranslationCall

with read_base():
    from .._base_.grammar_translations import *

train_dataloader = dict(
    dataset=dict(
        type=ParallelText,
        source="work_dirs/translations/train.source",
        target="work_dirs/translations/train.target",
        tokenizer=dict(type=grammar_translation_tokenizer),
        max_length=32,
    ),
    batch_size=32,
    collate_fn=dict(type=pad_batch),
)

model = dict(
    type=Distiller,
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
    call=dict(type=TranslationCall, max_new_tokens=32),
    task_loss=dict(type=TokenCrossEntropyLoss),
)

# one rate for all nlp/translation/marian_*, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=3e-3, weight_decay=0.01))
