# Questions on the package's own texts in English and two made-up languages: 150 in nine pairs of languages to train on
# (each with two of the three languages, so four pairs), 100 in all nine pairs to judge by.
from mmengine.optim import LinearLR

from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import pad_batch
from limbeck_nlp.evaluation import SpanMetric
from limbeck_nlp.qa import GrammarQuestions

train_dataloader = dict(
    dataset=dict(type=GrammarQuestions, size=150, seed=30, sentences=1, languages=1),
    batch_size=24,
    collate_fn=dict(type=pad_batch),
)
val_dataloader = dict(
    dataset=dict(type=GrammarQuestions, size=100, seed=31, sentences=1), batch_size=100, collate_fn=dict(type=pad_batch)
)
val_evaluator = dict(type=SpanMetric)
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=3)
param_scheduler = dict(
    type=LinearLR, start_factor=1.0, end_factor=0.0, begin=0, end=3, by_epoch=True, convert_to_iter_based=True
)
