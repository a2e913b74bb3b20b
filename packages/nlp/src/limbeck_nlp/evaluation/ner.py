"""Precision, recall and F1 of entities (exact span and type), as conlleval counts them, by seqeval."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck_core.errors import DataError
from limbeck_nlp.ner.conll import TaggedFile, TaggedSentence, read_conll, to_bio

Tagged = str | Path | Sequence[TaggedSentence]


def evaluate(predicted_conll: Tagged, true_conll: Tagged) -> dict[str, Any]:
    """Score predicted entities.

    Args:
        predicted_conll: A file in columns (see :func:`~limbeck_nlp.ner.conll.read_conll`) or sentences.
        true_conll: The truth, of the same sentences.

    Returns:
        ``precision``, ``recall`` and ``f1`` (micro, over entities) in per cent; ``support``, the number of true
        entities; ``types``, the same four by entity type; ``repaired``, how many predicted tags did not fit their
        scheme and were changed.

    Raises:
        DataError: if the two hold other sentences or words, with the first that differs.
    """
    predicted, truth = _read(predicted_conll), _read(true_conll)
    if len(predicted.sentences) != len(truth.sentences):
        raise DataError(
            f"predictions and truth must hold the same sentences, got {len(predicted.sentences)} and "
            f"{len(truth.sentences)}"
        )
    for number, (ours, theirs) in enumerate(zip(predicted.sentences, truth.sentences, strict=True), start=1):
        if ours.words != theirs.words:
            raise DataError(
                f"sentence {number} differs: predictions have {' '.join(ours.words[:8])!r}, the truth "
                f"{' '.join(theirs.words[:8])!r}"
            )
    scores = entity_scores([s.tags for s in predicted.sentences], [s.tags for s in truth.sentences])
    return {**scores, "repaired": predicted.repaired}


def entity_scores(predicted: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Score tags in BIO; see :func:`evaluate`.

    Args:
        predicted: Tags of each sentence.
        truth: The same.

    Raises:
        DataError: if the numbers of tags differ.
    """
    from seqeval.metrics import classification_report  # noqa: PLC0415  brings scikit-learn along

    if [len(tags) for tags in predicted] != [len(tags) for tags in truth]:
        raise DataError("predictions and truth must have a tag for each of the same words")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a type that is never predicted has precision 0, which is what we return
        report = (
            classification_report([list(t) for t in truth], [list(t) for t in predicted], output_dict=True)
            if any(tag != "O" for tags in (*predicted, *truth) for tag in tags)
            else {}
        )
    nothing = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}
    rows = {
        name: {
            "precision": 100.0 * float(row["precision"]),
            "recall": 100.0 * float(row["recall"]),
            "f1": 100.0 * float(row["f1-score"]),
            "support": int(row["support"]),
        }
        for name, row in {"micro avg": nothing, **report}.items()
    }
    overall = rows["micro avg"]
    return {**overall, "types": {name: row for name, row in rows.items() if not name.endswith(" avg")}}


def _read(source: Tagged) -> TaggedFile:
    if isinstance(source, (str, Path)):
        return read_conll(source)
    sentences, repaired = [], 0
    for sentence in source:
        tags, changed = to_bio(sentence.tags, scheme="auto")
        repaired += changed
        sentences.append(TaggedSentence(sentence.words, tuple(tags)))
    return TaggedFile(tuple(sentences), "bio", repaired, "")
