"""Trans-Encoder: a bi-encoder and a cross-encoder teach each other to score pairs of sentences, without labels."""

from limbeck_nlp.trans_encoder.data import GrammarPairs, SentencePairs
from limbeck_nlp.trans_encoder.losses import (
    InBatchContrastLoss,
    pair_score_cross_entropy_loss,
    pair_score_mse_loss,
)
from limbeck_nlp.trans_encoder.models import BiEncoder, CrossEncoder, MeanScore

__all__ = [
    "BiEncoder",
    "CrossEncoder",
    "GrammarPairs",
    "InBatchContrastLoss",
    "MeanScore",
    "SentencePairs",
    "pair_score_cross_entropy_loss",
    "pair_score_mse_loss",
]
