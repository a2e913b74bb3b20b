"""BLEU and chrF by sacrebleu, which is an extra: ``pip install 'limbeck-nlp[translation]'``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck_core.errors import DataError, MissingDependency


def _sacrebleu() -> Any:
    try:
        import sacrebleu  # noqa: PLC0415  optional
    except ImportError as error:
        raise MissingDependency("BLEU needs sacrebleu: pip install 'limbeck-nlp[translation]'") from error
    return sacrebleu


def corpus_bleu(
    hypotheses: Sequence[str], references: Sequence[str], *, tokenize: str = "13a", lowercase: bool = False
) -> dict[str, float | str]:
    """Judge translations of a whole test set.

    Args:
        hypotheses: Translations as text, not as tokens.
        references: One reference each.
        tokenize: Tokenizer of sacrebleu: ``"13a"`` for most languages, ``"zh"``, ``"ja-mecab"``, ``"ko-mecab"``, ...
        lowercase: Fold case.

    Returns:
        ``bleu`` and ``chrf`` from 0 to 100; ``length_ratio``, words of the translations over those of the references;
        ``count``; and ``signature``, which belongs beside every published BLEU.

    Raises:
        MissingDependency: if sacrebleu is not installed.
        DataError: if there is nothing to judge, the counts differ, or sacrebleu refuses an option.
    """
    library = _sacrebleu()
    if not hypotheses or len(hypotheses) != len(references):
        raise DataError(f"expected one reference for each translation, got {len(hypotheses)} and {len(references)}")
    try:
        measure = library.metrics.BLEU(tokenize=tokenize, lowercase=lowercase)
    except (KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"sacrebleu has no tokenizer {tokenize!r}: {error}") from error
    found = measure.corpus_score(list(hypotheses), [list(references)])
    characters = library.metrics.CHRF(lowercase=lowercase).corpus_score(list(hypotheses), [list(references)])
    return {
        "bleu": float(found.score),
        "chrf": float(characters.score),
        "length_ratio": float(found.sys_len) / max(int(found.ref_len), 1),
        "count": float(len(hypotheses)),
        "signature": str(measure.get_signature()),
    }


def sentence_bleu(hypothesis: str, reference: str) -> float:
    """BLEU of one sentence from 0 to 100, with one added to the counts of every order.

    Raises:
        MissingDependency: if sacrebleu is not installed.

    Reference:
        Lin and Och, ORANGE: a Method for Evaluating Automatic Evaluation Metrics for Machine Translation, COLING 2004.
    """
    measure = _sacrebleu().metrics.BLEU(smooth_method="add-k", smooth_value=1, effective_order=True)
    return float(measure.sentence_score(hypothesis, [reference]).score)


def closest_to_reference(candidates: Sequence[str], reference: str) -> str:
    """Return the candidate of the highest sentence BLEU, the first of equals: sequence-level interpolation.

    Raises:
        DataError: if there is no candidate.
        MissingDependency: if sacrebleu is not installed.

    Reference:
        Kim and Rush, Sequence-Level Knowledge Distillation, arXiv:1606.07947, section 3.3.
    """
    if not candidates:
        raise DataError("there is no candidate to choose from")
    return max(candidates, key=lambda candidate: sentence_bleu(candidate, reference))


def evaluate(hypotheses: Path, references: Path, *, tokenize: str = "13a") -> dict[str, float | str]:
    """Judge a file of translations against a file of references, plain or ``.gz``, one sentence a line.

    Raises:
        DataError: if a file is missing or damaged, or they differ in their number of lines.
        MissingDependency: if sacrebleu is not installed.
    """
    from limbeck_nlp.translation.data import read_parallel  # noqa: PLC0415  brings torch and the grammar along

    return corpus_bleu(*read_parallel(hypotheses, references), tokenize=tokenize)
