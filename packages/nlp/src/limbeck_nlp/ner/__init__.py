"""Names in a language without labels: ProKD's prototypes and self-training."""

from limbeck_nlp.ner.conll import TaggedSentence, read_conll, to_bio, to_bioes, write_conll
from limbeck_nlp.ner.data import GRAMMAR_LABELS, ColumnText, GrammarEntities, SourceAndTarget, TaggedText
from limbeck_nlp.ner.decoding import viterbi_tags
from limbeck_nlp.ner.distillers import AlignedTeacherDistiller, ProKDDistiller
from limbeck_nlp.ner.prototypes import (
    ProbabilityMSELoss,
    Prototypes,
    class_means,
    probability_mse_loss,
    prototype_contrast_loss,
    prototype_pseudo_labels,
)

__all__ = [
    "GRAMMAR_LABELS",
    "AlignedTeacherDistiller",
    "ColumnText",
    "GrammarEntities",
    "ProKDDistiller",
    "ProbabilityMSELoss",
    "Prototypes",
    "SourceAndTarget",
    "TaggedSentence",
    "TaggedText",
    "class_means",
    "probability_mse_loss",
    "prototype_contrast_loss",
    "prototype_pseudo_labels",
    "read_conll",
    "to_bio",
    "to_bioes",
    "viterbi_tags",
    "write_conll",
]
