"""Texts with a class each: from a table on the disk, or written by the grammar."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from limbeck_core.checks import check_between
from limbeck_core.errors import ConfigError, DataError, closest
from limbeck_nlp.data.dataset import Ids, TextDataset
from limbeck_nlp.data.grammar import NUM_INTENTS, Grammar, all_words, corpus
from limbeck_nlp.tokenization import Kind, train_tokenizer

_FORMATS = {".tsv": "\t", ".csv": ","}
_MAX_FIELD = 2**24  # characters; Python's own limit of 2**17 is below some documents


@lru_cache(maxsize=8)
def grammar_tokenizer(kind: Kind = "words", vocabulary_size: int = 400, *, segments: bool = False) -> Any:
    """Learn a tokenizer from the grammar's own text; the same one every time.

    Args:
        kind: See :func:`~limbeck_nlp.tokenization.train_tokenizer`.
        vocabulary_size: See there; the grammar has 150 words.
        segments: See there.
    """
    text = [*corpus(4000, seed=0), *all_words()]
    return train_tokenizer(text, kind=kind, vocabulary_size=vocabulary_size, segments=segments)


class GrammarIntents(TextDataset):
    """Sentences of the grammar, each with its intent.

    The test part comes from another seed than the training part; what it says may occur in training, in other words.

    Args:
        train: The training part, or the test part.
        size: Number of sentences.
        label_noise: Share of the training sentences that get a wrong label, drawn evenly from the others.
        seed: Which sentences are written.
        tokenizer: See :class:`~limbeck_nlp.data.dataset.TextDataset`; the grammar's own by default.
        max_length: See there.

    Raises:
        ConfigError: if noise is asked of the test part.
        ValueError: if ``label_noise`` is no share.
    """

    def __init__(
        self,
        train: bool = True,
        *,
        size: int = 2000,
        label_noise: float = 0.0,
        seed: int = 0,
        tokenizer: Any = None,
        max_length: int = 32,
    ) -> None:
        check_between(label_noise, "label_noise", 0.0, 1.0)
        if label_noise and not train:
            raise ConfigError("label_noise is for training sentences: leave it out with train=False")
        super().__init__(
            grammar_tokenizer() if tokenizer is None else tokenizer,
            size,
            max_length=max_length,
            classes=[f"intent {index}" for index in range(NUM_INTENTS)],
        )
        self.sentences = Grammar(2 * seed + (0 if train else 1)).sentences(size)
        targets: Ids = np.asarray([sentence.intent for sentence in self.sentences], dtype=np.int64)
        draw = np.random.RandomState(seed + 1)
        wrong = draw.permutation(size)[: round(label_noise * size)]
        targets[wrong] = (targets[wrong] + draw.randint(1, NUM_INTENTS, size=len(wrong))) % NUM_INTENTS
        self.targets = targets

    def sample(self, position: int) -> dict[str, Any]:
        """Return the sentence and its intent."""
        return {"inputs": self.encode(self.sentences[position].text), "targets": int(self.targets[position])}


class ClassifiedText(TextDataset):
    """Texts, or pairs of texts, with a class each, from a table with named columns.

    ``.tsv`` and ``.csv`` files have their names in the first line (as GLUE's do), ``.jsonl`` files one object a line.

    Args:
        root: Folder of the file.
        file: Its name.
        tokenizer: See :class:`~limbeck_nlp.data.dataset.TextDataset`.
        text: Column of the text.
        pair: Column of the second text, for pairs.
        label: Column of the class; ``None`` for text without.
        classes: The values of that column, in the order of the model's classes. Default: those that occur, sorted.
        max_length: See there.

    Raises:
        DataError: if the file is missing or has no such column, if a line is damaged, or a class is not in ``classes``.
    """

    def __init__(
        self,
        root: str | Path,
        file: str,
        tokenizer: Any,
        *,
        text: str = "sentence",
        pair: str | None = None,
        label: str | None = "label",
        classes: Sequence[str] | None = None,
        max_length: int = 128,
    ) -> None:
        path = Path(root) / file
        columns = [name for name in (text, pair, label) if name is not None]
        rows = list(read_table(path, columns))
        labels = [row[-1] for row in rows] if label is not None else []
        names = list(classes) if classes is not None else sorted(set(labels))
        unknown = sorted(set(labels) - set(names))
        if unknown:
            raise DataError(
                f"{path} holds the class {unknown[0]!r}, which is not in classes: {closest(unknown[0], names)}"
            )
        super().__init__(tokenizer, len(rows), max_length=max_length, classes=names)
        self._texts = [(row[0], row[1] if pair is not None else None) for row in rows]
        place = {name: index for index, name in enumerate(names)}
        self.targets: Ids | None = (
            np.asarray([place[name] for name in labels], dtype=np.int64) if label is not None else None
        )

    def sample(self, position: int) -> dict[str, Any]:
        """Return the text and, where there are any, its class."""
        sample: dict[str, Any] = {"inputs": self.encode(*self._texts[position])}
        if self.targets is not None:
            sample["targets"] = int(self.targets[position])
        return sample


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Read named columns of a ``.tsv``, ``.csv`` or ``.jsonl`` file, as text.

    Raises:
        DataError: if the file is missing, of another kind, or damaged; or lacks a column, with the closest names.
    """
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no file {path}; of {path.parent}, {closest(path.name, sorted(siblings))}")
    if path.suffix == ".jsonl":
        yield from _read_objects(path, columns)
        return
    if path.suffix not in _FORMATS:
        raise DataError(
            f"{path} must be a .tsv, .csv or .jsonl file with named columns, got {path.suffix or 'no ending'}"
        )
    csv.field_size_limit(_MAX_FIELD)
    quoting: Literal[0, 3] = (
        csv.QUOTE_NONE if path.suffix == ".tsv" else csv.QUOTE_MINIMAL
    )  # GLUE's quotes are part of the text
    with path.open(encoding="utf-8", newline="") as file:
        try:
            lines = csv.reader(file, delimiter=_FORMATS[path.suffix], quoting=quoting, strict=True)
            header = next(lines, [])
            for name in columns:
                if name not in header:
                    raise DataError(f"{path} has no column {name!r}: {closest(name, header)}")
            places = [header.index(name) for name in columns]
            for number, row in enumerate(lines, start=2):
                if row and len(row) <= max(places):
                    raise DataError(f"{path}, line {number}: expected {len(header)} columns, got {len(row)}")
                if row:
                    yield tuple(row[place] for place in places)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a table of UTF-8 text: {error}") from error


def _read_objects(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                entry = json.loads(line)
                for name in columns:
                    if name not in entry:
                        raise DataError(f"{path}, line {number}: there is no {name!r}: {closest(name, entry)}")
                yield tuple(str(entry[name]) for name in columns)
        except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
            raise DataError(f"{path} must hold one JSON object a line, UTF-8: {error}") from error
