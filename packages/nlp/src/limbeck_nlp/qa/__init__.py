"""Cross-lingual extractive question answering by self-distillation in generations (G-XLT)."""

from limbeck_nlp.qa.data import ParallelQuestions, QuestionWindows, cross_lingual
from limbeck_nlp.qa.decoding import answer_of, best_span
from limbeck_nlp.qa.distiller import GenerationsDistiller, SpanCall
from limbeck_nlp.qa.grammar import GrammarQuestions, grammar_questions
from limbeck_nlp.qa.losses import SpanDistillationLoss, average_precision_at_k, span_distillation_loss
from limbeck_nlp.qa.squad import Answer, Question, read_squad

__all__ = [
    "Answer",
    "GenerationsDistiller",
    "GrammarQuestions",
    "ParallelQuestions",
    "Question",
    "QuestionWindows",
    "SpanCall",
    "SpanDistillationLoss",
    "answer_of",
    "average_precision_at_k",
    "best_span",
    "cross_lingual",
    "grammar_questions",
    "read_squad",
    "span_distillation_loss",
]
