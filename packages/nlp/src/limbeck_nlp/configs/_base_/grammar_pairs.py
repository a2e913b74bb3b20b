# Pairs of the package's own sentences: 2000 to train on, without their scores, 500 with known similarity to judge by.
from mmengine.optim import CosineAnnealingLR

from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import pad_batch
from limbeck_nlp.evaluation import PairScoreMetric
from limbeck_nlp.trans_encoder import GrammarPairs

train_dataloader = dict(
    dataset=dict(type=GrammarPairs, size=2000, seed=20, both_orders=True),
    batch_size=64,
    collate_fn=dict(type=pad_batch),
)
val_dataloader = dict(
    dataset=dict(type=GrammarPairs, size=500, seed=21), batch_size=100, collate_fn=dict(type=pad_batch)
)
val_evaluator = dict(type=PairScoreMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=2)
param_scheduler = dict(type=CosineAnnealingLR, T_max=2, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
