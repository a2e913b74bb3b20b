# XQuAD in seven languages to train on (English and five drawn for each id), MLQA's development part to judge by.
from mmengine.optim import LinearLR

from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import pad_batch
from limbeck_nlp.evaluation import SpanMetric
from limbeck_nlp.qa import ParallelQuestions

tokenizer = "checkpoints/mbert-qa-en"
train_dataloader = dict(
    dataset=dict(
        type=ParallelQuestions,
        root="data/xquad",
        files=dict(
            en="xquad.en.json",
            es="xquad.es.json",
            de="xquad.de.json",
            ar="xquad.ar.json",
            vi="xquad.vi.json",
            hi="xquad.hi.json",
            zh="xquad.zh.json",
        ),
        tokenizer=tokenizer,
        languages=5,
        seed=3,
    ),
    batch_size=6,
    collate_fn=dict(type=pad_batch),
)
val_dataloader = dict(
    dataset=dict(
        type=ParallelQuestions,
        root="data/mlqa",
        files=dict(
            en="dev-context-en-question-en.json",
            es="dev-context-es-question-es.json",
            de="dev-context-de-question-de.json",
            ar="dev-context-ar-question-ar.json",
            vi="dev-context-vi-question-vi.json",
            hi="dev-context-hi-question-hi.json",
            zh="dev-context-zh-question-zh.json",
        ),
        tokenizer=tokenizer,
    ),
    batch_size=32,
    collate_fn=dict(type=pad_batch),
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
