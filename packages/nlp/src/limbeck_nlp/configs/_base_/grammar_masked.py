# Sentences of the package's own grammar with words hidden: 2000 to train on, 500 to test on.
from mmengine.optim import CosineAnnealingLR

from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import GrammarText, pad_batch
from limbeck_nlp.evaluation import TokenMetric

train_dataloader = dict(
    dataset=dict(type=GrammarText, size=2000, seed=40), batch_size=32, collate_fn=dict(type=pad_batch)
)
val_dataloader = dict(
    dataset=dict(type=GrammarText, size=500, seed=41), batch_size=100, collate_fn=dict(type=pad_batch)
)
val_evaluator = dict(type=TokenMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=5)
param_scheduler = dict(type=CosineAnnealingLR, T_max=5, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
