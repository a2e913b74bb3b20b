"""Pairs of sentences, for both forms at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from limbeck_core.errors import DataError
from limbeck_nlp.data.classification import grammar_tokenizer, read_table
from limbeck_nlp.data.dataset import TextDataset
from limbeck_nlp.data.grammar import Grammar, similarity


class SentencePairs(TextDataset):
    """Pairs of sentences from a table, with a score where there is one.

    A sample has ``pair`` (``first`` and ``second``, for a bi-encoder), ``inputs`` (both in one, for a cross-encoder),
    and ``targets``, the score or 0.

    Args:
        root: Folder of the file.
        file: A ``.tsv``, ``.csv`` or ``.jsonl`` file.
        tokenizer: See :class:`~limbeck_nlp.data.dataset.TextDataset`.
        first: Column of the first sentence.
        second: Column of the second.
        score: Column of the score; ``None`` for pairs without, which suffice to train.
        both_orders: Give each pair in both orders, as the paper does for all but asymmetric tasks.
        max_length: Longest input of the cross-encoder; a single sentence has half of it.

    Raises:
        DataError: if the file is missing or damaged, or a score is no number.
    """

    def __init__(
        self,
        root: str | Path,
        file: str,
        tokenizer: Any,
        *,
        first: str = "sentence1",
        second: str = "sentence2",
        score: str | None = None,
        both_orders: bool = False,
        max_length: int = 64,
    ) -> None:
        rows = list(read_table(Path(root) / file, [first, second, *([] if score is None else [score])]))
        try:
            scores = [0.0 if score is None else float(row[2]) for row in rows]
        except ValueError as error:
            raise DataError(f"{Path(root) / file}: the column {score!r} must hold numbers ({error})") from error
        self._setup([(row[0], row[1]) for row in rows], scores, tokenizer, both_orders, max_length)

    def _setup(
        self,
        pairs: Sequence[tuple[str, str]],
        scores: Sequence[float],
        tokenizer: Any,
        both_orders: bool,
        max_length: int,
    ) -> None:
        doubled = [*pairs, *((b, a) for a, b in pairs)] if both_orders else list(pairs)
        TextDataset.__init__(self, tokenizer, len(doubled), max_length=max_length)
        self.pairs = doubled
        self.scores = np.asarray([*scores, *scores] if both_orders else scores, dtype=np.float32)

    def sample(self, position: int) -> dict[str, Any]:
        """Return one pair in both forms."""
        first, second = self.pairs[position]
        joint = self.encode(first, second)
        half = self.max_length // 2
        apart = [
            self.tokenizer(text, truncation=True, max_length=half, return_tensors="pt") for text in (first, second)
        ]
        names = ("first", "second")
        pair = {name: {key: value[0] for key, value in one.items()} for name, one in zip(names, apart, strict=True)}
        return {"inputs": joint, "pair": pair, "targets": float(self.scores[position])}


class GrammarPairs(SentencePairs):
    """Pairs of the grammar's sentences whose similarity, the share of things they agree on, is known.

    Args:
        size: Number of pairs.
        seed: Which ones are written.
        same: Pair each sentence with itself, as SimCSE's contrast wants it.
        both_orders: See :class:`SentencePairs`.
        tokenizer: See there; the grammar's own, with segments, by default.
        max_length: See there.
    """

    def __init__(
        self,
        size: int = 2000,
        *,
        seed: int = 0,
        same: bool = False,
        both_orders: bool = False,
        tokenizer: Any = None,
        max_length: int = 64,
    ) -> None:
        grammar = Grammar(seed)
        pairs, scores = [], []
        for _ in range(size):
            sentence = grammar.sentence()
            other = sentence if same else grammar.variation(sentence, grammar.choice(7))
            pairs.append((sentence.text, other.text))
            scores.append(similarity(sentence, other))
        tokenizer = grammar_tokenizer(segments=True) if tokenizer is None else tokenizer
        self._setup(pairs, scores, tokenizer, both_orders, max_length)
