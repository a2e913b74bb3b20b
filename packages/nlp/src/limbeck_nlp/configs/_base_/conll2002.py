# CoNLL-2002 as it is published: ROOT/nlp/conll2002/{esp,ned}.{train,testa,testb}.gz; ROOT is --data-root or
# LIMBECK_DATA. Labels in Spanish, text without labels in Dutch; validation is in Spanish, the test in Dutch.
# weights/encoder is your own local folder with a multilingual encoder of width 768, as save_pretrained writes it.
from mmengine.optim import LinearLR

from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import pad_batch
from limbeck_nlp.evaluation import EntityMetric
from limbeck_nlp.ner import ColumnText

labels = ("O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-ORG", "I-ORG", "B-PER", "I-PER")
columns = dict(type=ColumnText, root="nlp/conll2002", tokenizer="weights/encoder", labels=labels)
train_dataloader = dict(
    dataset=dict(**columns, file="ned.train.gz", labelled=False),
    batch_size=32,
    num_workers=2,
    collate_fn=dict(type=pad_batch),
)
val_dataloader = dict(
    dataset=dict(**columns, file="esp.testa.gz"),
    batch_size=64,
    collate_fn=dict(type=pad_batch),
)
val_evaluator = dict(type=EntityMetric, labels=labels)
val_cfg = dict()
test_dataloader = dict(
    dataset=dict(**columns, file="ned.testb.gz"),
    batch_size=64,
    collate_fn=dict(type=pad_batch),
)
test_evaluator = dict(type=EntityMetric, labels=labels)
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=3)
param_scheduler = dict(
    type=LinearLR, start_factor=1.0, end_factor=0.0, begin=0, end=3, by_epoch=True, convert_to_iter_based=True
)
