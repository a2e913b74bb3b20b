# Sentences of the package's own grammar as plain text, nothing hidden: 2000 to train on. What is learnt here is judged
# after fine-tuning, so there is no test part.
from mmengine.optim import CosineAnnealingLR

from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import GrammarText, pad_batch

train_dataloader = dict(
    dataset=dict(type=GrammarText, size=2000, seed=40, share=0.0), batch_size=32, collate_fn=dict(type=pad_batch)
)
train_cfg = dict(type=EpochLoop, max_epochs=5)
param_scheduler = dict(type=CosineAnnealingLR, T_max=5, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
