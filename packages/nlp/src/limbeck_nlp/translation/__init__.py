"""Distillation of translation models: on each token, on the teacher's translations, by the past self."""

from pathlib import Path

from limbeck_nlp.translation.data import GrammarTranslations, ParallelText
from limbeck_nlp.translation.generation import TranslationCall
from limbeck_nlp.translation.sequences import write_translations

USER_DIR = Path(__file__).parent / "fairseq_plugin"
"""What fairseq takes as ``--user-dir``."""

__all__ = ["USER_DIR", "GrammarTranslations", "ParallelText", "TranslationCall", "write_translations"]
