# Sentences of the package's own grammar: 300 to train on. To judge by: 500 other ones, and 500 outliers, in which two
# neighbouring words are exchanged.
from mmengine.optim import CosineAnnealingLR

from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import pad_batch
from limbeck_nlp.evaluation import OodMetric
from limbeck_nlp.ood import GrammarOod

train_dataloader = dict(
    dataset=dict(type=GrammarOod, size=300, seed=30), batch_size=32, collate_fn=dict(type=pad_batch)
)
val_dataloader = dict(
    dataset=dict(type=GrammarOod, size=1000, seed=31, outliers=0.5), batch_size=100, collate_fn=dict(type=pad_batch)
)
val_evaluator = dict(type=OodMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=10)
param_scheduler = dict(type=CosineAnnealingLR, T_max=10, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
