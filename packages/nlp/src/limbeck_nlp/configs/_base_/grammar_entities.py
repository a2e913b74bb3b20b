# People, places and times in sentences of the grammar: 2000 in English with labels, 2000 in a made-up language without.
# Validation is in English (no label of the target is used to choose anything); the test is in the made-up language.
from mmengine.optim import LinearLR

from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import pad_batch
from limbeck_nlp.evaluation import EntityMetric
from limbeck_nlp.ner import GrammarEntities

train_dataloader = dict(
    dataset=dict(type=GrammarEntities, size=2000, seed=41, language="aa", labelled=False),
    batch_size=32,
    collate_fn=dict(type=pad_batch),
)
val_dataloader = dict(
    dataset=dict(type=GrammarEntities, size=300, seed=42), batch_size=100, collate_fn=dict(type=pad_batch)
)
labels = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER", "B-TIME", "I-TIME")
val_evaluator = dict(type=EntityMetric, labels=labels)
val_cfg = dict()
test_dataloader = dict(
    dataset=dict(type=GrammarEntities, size=300, seed=43, language="aa"),
    batch_size=100,
    collate_fn=dict(type=pad_batch),
)
test_evaluator = dict(type=EntityMetric, labels=labels)
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=6)
param_scheduler = dict(
    type=LinearLR, start_factor=1.0, end_factor=0.0, begin=0, end=6, by_epoch=True, convert_to_iter_based=True
)
