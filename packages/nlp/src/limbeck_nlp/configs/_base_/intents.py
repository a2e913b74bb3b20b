# Intents of sentences that the package's own grammar writes: nothing to download, seconds a run on a CPU.
# 2000 sentences to train on, 20 % of them with a wrong label (the same ones for every model), 1000 to test on.
from mmengine.optim import CosineAnnealingLR

from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import GrammarIntents, pad_batch
from limbeck_nlp.evaluation import TextClassificationMetric

train_dataloader = dict(
    dataset=dict(type=GrammarIntents, train=True, size=2000, label_noise=0.2),
    batch_size=32,
    collate_fn=dict(type=pad_batch),
)
val_dataloader = dict(
    dataset=dict(type=GrammarIntents, train=False, size=1000), batch_size=250, collate_fn=dict(type=pad_batch)
)
val_evaluator = dict(type=TextClassificationMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=8)
param_scheduler = dict(type=CosineAnnealingLR, T_max=8, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
