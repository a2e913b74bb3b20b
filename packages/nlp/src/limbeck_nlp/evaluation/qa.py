"""Exact match and F1 of answers, by the official rules of SQuAD and MLQA, and over pairs of languages."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck_core.errors import DataError
from limbeck_nlp.qa.squad import Question, read_squad

Pair = tuple[str, str]
_ASCII_PUNCTUATION = frozenset(string.punctuation)
# MLQA's lists. The Arabic article is taken off wherever its two letters stand, as there; Hindi and Chinese have none.
_ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "ar": "\u0627\u0644",
}
_CHINESE = "\u4e00", "\u9fa5"


def normalize_answer(text: str, language: str = "") -> str:
    """Return an answer without case, punctuation, articles and superfluous spaces.

    Args:
        text: The answer.
        language: Code of its language. Empty follows SQuAD's script: ASCII punctuation and English articles (XQuAD is
            officially scored so in every language). Any other follows MLQA's: punctuation of all scripts, and the
            articles of ``en``, ``es``, ``vi``, ``de``, ``ar``; other languages have no articles taken off.

    Reference:
        Rajpurkar et al., SQuAD, arXiv:1606.05250; Lewis et al., MLQA, arXiv:1910.07475, section 4.2.

    >>> normalize_answer("The  Harbour!")
    'harbour'
    """
    lowered = text.lower()
    if language:
        kept = "".join(
            c for c in lowered if c not in _ASCII_PUNCTUATION and not unicodedata.category(c).startswith("P")
        )
    else:
        kept = "".join(c for c in lowered if c not in _ASCII_PUNCTUATION)
    articles = _ARTICLES.get(language or "en")
    if articles is not None:
        kept = re.sub(articles, " ", kept)
    return " ".join(answer_tokens(kept, language))


def answer_tokens(text: str, language: str = "") -> list[str]:
    """Split a normalised answer into what F1 counts: words, and for Chinese single characters."""
    if language != "zh":
        return text.split()
    low, high = _CHINESE
    return re.sub(f"([{low}-{high}])", r" \1 ", text).split()


def exact_match(prediction: str, answer: str, language: str = "") -> float:
    """Return 1 if two answers are equal once normalised, else 0."""
    return float(normalize_answer(prediction, language) == normalize_answer(answer, language))


def token_f1(prediction: str, answer: str, language: str = "") -> float:
    """Return the F1 of the words of two answers, between 0 and 1; an empty answer only fits an empty one."""
    first, second = (normalize_answer(text, language).split() for text in (prediction, answer))
    if not first or not second:
        return float(first == second)
    common = sum((Counter(first) & Counter(second)).values())
    return 2 * common / (len(first) + len(second))


def score_question(prediction: str, question: Question, *, official_squad: bool = False) -> tuple[float, float]:
    """Return exact match and F1 of a prediction against the best of the question's answers.

    Args:
        prediction: The predicted text; empty for "no answer".
        question: The question with its answers and its context's language, whose rules are used.
        official_squad: Use SQuAD's rules whatever the language.
    """
    language = "" if official_squad else question.context_language
    answers = [answer.text for answer in question.answers] or [""]

    def best(measure: Callable[[str, str, str], float]) -> float:
        return max(measure(prediction, answer, language) for answer in answers)

    return best(exact_match), best(token_f1)


def evaluate(
    predictions: Mapping[str, str], squad_json: str | Path | Mapping[str, Any], *, language: str = ""
) -> dict[str, Any]:
    """Score predicted answers.

    Args:
        predictions: Text by question id; empty for "no answer". A question without a prediction scores 0.
        squad_json: File in SQuAD's format (``.json`` or ``.json.gz``), or what it holds.
        language: Code of the contexts' language; see :func:`normalize_answer`.

    Returns:
        ``exact_match`` and ``f1`` in per cent; ``count``, ``missing`` (questions without a prediction) and ``unknown``
        (predictions without a question); ``answerable_f1`` and ``unanswerable_f1`` where there are questions of both
        kinds; ``per_sample``, lists of ``exact_match`` and ``f1`` in the file's order.

    Raises:
        DataError: as :func:`~limbeck_nlp.qa.squad.read_squad`, or if no prediction belongs to any question.
    """
    questions = read_squad(squad_json, question_language=language).questions
    known = {question.identity for question in questions}
    if predictions and not known & predictions.keys():
        raise DataError(
            f"none of the {len(predictions)} predictions belongs to a question, the first is of "
            f"{next(iter(predictions))!r}: predictions are a mapping from the ids of this file to texts"
        )
    scores = [
        score_question(predictions[q.identity], q) if q.identity in predictions else (0.0, 0.0) for q in questions
    ]
    result: dict[str, Any] = {
        "exact_match": _percent([score[0] for score in scores]),
        "f1": _percent([score[1] for score in scores]),
        "count": len(questions),
        "missing": len(known - predictions.keys()),
        "unknown": len(predictions.keys() - known),
    }
    parts = {
        name: [score[1] for score, question in zip(scores, questions, strict=True) if bool(question.answers) == wanted]
        for name, wanted in (("answerable_f1", True), ("unanswerable_f1", False))
    }
    if all(parts.values()):
        result.update({name: _percent(values) for name, values in parts.items()})
    result["per_sample"] = {
        name: [100.0 * score[place] for score in scores] for place, name in enumerate(("exact_match", "f1"))
    }
    return result


def _percent(values: Sequence[float]) -> float:
    return 100.0 * sum(values) / max(len(values), 1)


@dataclass(frozen=True)
class PairScores:
    """Exact match and F1 for each pair of question language and context language.

    Args:
        exact_match: Per cent, by (question language, context language).
        f1: The same.
        counts: Questions of each pair.
    """

    exact_match: Mapping[Pair, float]
    f1: Mapping[Pair, float]
    counts: Mapping[Pair, int]

    @property
    def languages(self) -> tuple[str, ...]:
        """All languages, sorted."""
        return tuple(sorted({language for pair in self.f1 for language in pair}))

    def mean(self, measure: str = "f1", *, same: bool = False) -> float:
        """Mean over the pairs (G-XLT), or over pairs of one language only (XLT); NaN if there are none.

        Args:
            measure: ``"f1"`` or ``"exact_match"``.
            same: Only pairs whose question and context have one language.
        """
        values = [value for (q, c), value in getattr(self, measure).items() if q == c or not same]
        return sum(values) / len(values) if values else float("nan")

    def table(self, measure: str = "f1") -> str:
        """The matrix as text: a row for each question language, a column for each context language."""
        scores, names = getattr(self, measure), self.languages
        lines = ["q \\ c " + "".join(f"{name:>8}" for name in names)]
        for q in names:
            cells = [f"{scores[q, c]:8.2f}" if (q, c) in scores else f"{'-':>8}" for c in names]
            lines.append(f"{q:<6}" + "".join(cells))
        return "\n".join(lines)

    def draw(self, path: str | Path, measure: str = "f1") -> None:
        """Write the matrix as a picture.

        Args:
            path: File; its ending decides the format (``.png``, ``.svg``, ``.pdf``).
            measure: ``"f1"`` or ``"exact_match"``.
        """
        from matplotlib.figure import Figure  # noqa: PLC0415  half a second, and only pictures need it

        scores, names = getattr(self, measure), self.languages
        size = 1.6 + 0.6 * len(names)
        figure = Figure(figsize=(size + 0.8, size), layout="constrained")
        axes = figure.add_subplot()
        grid = [[scores.get((q, c), float("nan")) for c in names] for q in names]
        image = axes.imshow(grid, vmin=0, vmax=100, cmap="viridis")
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("language of the context")
        axes.set_ylabel("language of the question")
        for row, values in enumerate(grid):
            for column, value in enumerate(values):
                if not math.isnan(value):
                    colour = "white" if value < 60 else "black"
                    axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour)
        figure.colorbar(image, label={"f1": "F1, %", "exact_match": "exact match, %"}[measure])
        figure.savefig(path)


def score_pairs(answered: Sequence[tuple[Question, str]], *, official_squad: bool = False) -> PairScores:
    """Score answers by the languages of question and context.

    Args:
        answered: Questions, each with the predicted text.
        official_squad: Normalise by SQuAD's rules instead of those of the context's language.
    """
    by_pair: dict[Pair, list[tuple[float, float]]] = {}
    for question, prediction in answered:
        by_pair.setdefault(question.pair, []).append(
            score_question(prediction, question, official_squad=official_squad)
        )
    pairs = sorted(by_pair)
    return PairScores(
        exact_match={pair: _percent([score[0] for score in by_pair[pair]]) for pair in pairs},
        f1={pair: _percent([score[1] for score in by_pair[pair]]) for pair in pairs},
        counts={pair: len(by_pair[pair]) for pair in pairs},
    )
