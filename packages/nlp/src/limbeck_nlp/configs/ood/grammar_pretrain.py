# A GPT-2 of 4 layers on all that the grammar writes, outliers too: what nlp/ood/grammar_teacher begins with.
#   limbeck train nlp/ood/grammar_pretrain
from mmengine.config import read_base
from torch.optim import AdamW

from limbeck_core import Distiller
from limbeck_core.calls import MappingCall
from limbeck_nlp.language_models import TokenCrossEntropyLoss
from limbeck_nlp.models import transformer

with read_base():
    from .._base_.grammar_ood import *

train_dataloader.update(dataset=dict(type=GrammarOod, size=4000, seed=32, outliers=0.5))
train_cfg.update(max_epochs=3)
param_scheduler.update(T_max=3)

model = dict(
    type=Distiller,
    student=dict(
        type=transformer,
        task="causal_lm",
        model_type="gpt2",
        vocab_size=160,
        n_embd=64,
        n_layer=4,
        n_head=4,
        n_positions=32,
        bos_token_id=5,
        eos_token_id=6,
    ),
    call=dict(type=MappingCall),
    task_loss=dict(type=TokenCrossEntropyLoss),
)

# one rate for all nlp/ood/grammar_*, not tuned
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=2e-3, weight_decay=0.01))
