"""Texts unlike those a model has learnt from: multi-level distillation, data sets, scores."""

from limbeck_nlp.ood.data import GrammarOod, OodText, WholeText
from limbeck_nlp.ood.detector import OutlierDetector
from limbeck_nlp.ood.layouts import AG_NEWS, LAYOUTS, NEWSGROUPS, read_ood
from limbeck_nlp.ood.losses import NearestLayersLoss, nearest_layers_loss
from limbeck_nlp.ood.matches import middle_layers, mlkd_matches
from limbeck_nlp.ood.scoring import log_perplexity, perplexity, score_texts

__all__ = [
    "AG_NEWS",
    "LAYOUTS",
    "NEWSGROUPS",
    "GrammarOod",
    "NearestLayersLoss",
    "OodText",
    "OutlierDetector",
    "WholeText",
    "log_perplexity",
    "middle_layers",
    "mlkd_matches",
    "nearest_layers_loss",
    "perplexity",
    "read_ood",
    "score_texts",
]
