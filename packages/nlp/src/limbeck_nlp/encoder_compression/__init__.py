"""Smaller encoders: MiniLM and MiniLMv2, and the losses of DistilBERT and TinyBERT, on any BERT-like pair of models."""

from limbeck_nlp.encoder_compression.layers import AttentionScores, EachLayer, SumOverLayers, layer_map, thinned
from limbeck_nlp.encoder_compression.matches import distilbert_matches, minilm_matches, tinybert_matches

__all__ = [
    "AttentionScores",
    "EachLayer",
    "SumOverLayers",
    "distilbert_matches",
    "layer_map",
    "minilm_matches",
    "thinned",
    "tinybert_matches",
]
