"""Data sets of text, their batches, and a grammar that writes text for trials. Nothing here downloads."""

from limbeck_nlp.data.classification import ClassifiedText, GrammarIntents, grammar_tokenizer, read_table
from limbeck_nlp.data.dataset import IGNORED, TextDataset, encode, pad, pad_batch
from limbeck_nlp.data.grammar import Grammar, Sentence, corpus, similarity
from limbeck_nlp.data.masked import GrammarText, MaskedText, TextLines, hide, read_lines

__all__ = [
    "IGNORED",
    "ClassifiedText",
    "Grammar",
    "GrammarIntents",
    "GrammarText",
    "MaskedText",
    "Sentence",
    "TextDataset",
    "TextLines",
    "corpus",
    "encode",
    "grammar_tokenizer",
    "hide",
    "pad",
    "pad_batch",
    "read_lines",
    "read_table",
    "similarity",
]
