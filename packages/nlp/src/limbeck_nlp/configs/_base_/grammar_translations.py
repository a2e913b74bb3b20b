# Sentences of the package's own grammar with a translation into a made-up language: 4000 to train on, 500 to test on.
# BLEU is against the usual word of each; it needs sacrebleu (pip install 'limbeck-nlp[translation]').
from mmengine.optim import CosineAnnealingLR

from limbeck_core.engine import EpochLoop
from limbeck_nlp.data import pad_batch
from limbeck_nlp.evaluation import TranslationMetric
from limbeck_nlp.translation import GrammarTranslations
from limbeck_nlp.translation.data import grammar_translation_tokenizer

train_dataloader = dict(
    dataset=dict(type=GrammarTranslations, size=4000, seed=20), batch_size=32, collate_fn=dict(type=pad_batch)
)
val_dataloader = dict(
    dataset=dict(type=GrammarTranslations, size=500, seed=22), batch_size=100, collate_fn=dict(type=pad_batch)
)
val_evaluator = dict(type=TranslationMetric, tokenizer=dict(type=grammar_translation_tokenizer))
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
train_cfg = dict(type=EpochLoop, max_epochs=5, val_interval=5)
param_scheduler = dict(type=CosineAnnealingLR, T_max=5, eta_min=0.0, by_epoch=True, convert_to_iter_based=True)
