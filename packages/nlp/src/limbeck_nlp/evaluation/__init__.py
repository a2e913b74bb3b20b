"""How good a model of language is. Metrics bring MMEngine along, so each is loaded when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from limbeck_core.errors import closest

if TYPE_CHECKING:
    from limbeck_nlp.evaluation.classification import TextClassificationMetric
    from limbeck_nlp.evaluation.entities import EntityMetric
    from limbeck_nlp.evaluation.ood import OodMetric
    from limbeck_nlp.evaluation.pairs import PairScoreMetric
    from limbeck_nlp.evaluation.spans import SpanMetric
    from limbeck_nlp.evaluation.tokens import TokenMetric
    from limbeck_nlp.evaluation.translations import TranslationMetric

_HOME = {
    "EntityMetric": "entities",
    "TextClassificationMetric": "classification",
    "TokenMetric": "tokens",
    "PairScoreMetric": "pairs",
    "OodMetric": "ood",
    "SpanMetric": "spans",
    "TranslationMetric": "translations",
}
__all__ = [
    "EntityMetric",
    "OodMetric",
    "PairScoreMetric",
    "SpanMetric",
    "TextClassificationMetric",
    "TokenMetric",
    "TranslationMetric",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {closest(name, __all__)}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
