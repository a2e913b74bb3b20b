# Multi30k, English to German, as it is published: ROOT/mt/multi30k/{train,val,test_2016_flickr}.{en,de}.gz; ROOT is
# --data-root or LIMBECK_DATA. The tokenizer is learnt once from the training text of both languages:
#   python -m limbeck_nlp.tokenization ROOT/mt/multi30k/train.en.gz ROOT/mt/multi30k/train.de.gz --out weights/multi30k
# BLEU needs sacrebleu (pip install 'limbeck-nlp[translation]').
from mmengine.optim import LinearLR

from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import pad_batch
from limbeck_nlp.evaluation import TranslationMetric
from limbeck_nlp.translation import ParallelText

tokenizer = "weights/multi30k"
train_dataloader = dict(
    dataset=dict(
        type=ParallelText,
        root="mt/multi30k",
        source="train.en.gz",
        target="train.de.gz",
        tokenizer=tokenizer,
        max_length=64,
    ),
    batch_size=128,
    num_workers=2,
    collate_fn=dict(type=pad_batch),
)
val_dataloader = dict(
    dataset=dict(
        type=ParallelText,
        root="mt/multi30k",
        source="val.en.gz",
        target="val.de.gz",
        tokenizer=tokenizer,
        max_length=64,
        long="cut",
    ),
    batch_size=64,
    collate_fn=dict(type=pad_batch),
)
val_evaluator = dict(type=TranslationMetric, tokenizer=tokenizer)
val_cfg = dict()
test_dataloader = dict(
    dataset=dict(
        type=ParallelText,
        root="mt/multi30k",
        source="test_2016_flickr.en.gz",
        target="test_2016_flickr.de.gz",
        tokenizer=tokenizer,
        max_length=64,
        long="cut",
    ),
    batch_size=64,
    collate_fn=dict(type=pad_batch),
)
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=20)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.01, end_factor=1.0, begin=0, end=2, by_epoch=True, convert_to_iter_based=True),
    dict(type=LinearLR, start_factor=1.0, end_factor=0.01, begin=2, end=20, by_epoch=True, convert_to_iter_based=True),
]
