"""Data sets of text, their batches, and a grammar that writes text for trials. Nothing here downloads."""

from limbeck_nlp.data.classification import ClassifiedText, GrammarIntents, grammar_tokenizer, read_table
from limbeck_nlp.data.dataset import IGNORED, TextDataset, encode, pad, pad_batch
from limbeck_nlp.data.grammar import Grammar, Sentence, corpus, similarity

__all__ = [
    "IGNORED",
    "ClassifiedText",
    "Grammar",
    "GrammarIntents",
    "Sentence",
    "TextDataset",
    "corpus",
    "encode",
    "grammar_tokenizer",
    "pad",
    "pad_batch",
    "read_table",
    "similarity",
]
