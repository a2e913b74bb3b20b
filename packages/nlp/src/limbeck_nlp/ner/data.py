"""Tagged sentences as tokens: the first piece of each word carries its label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from limbeck_core.build import build
from limbeck_core.errors import ConfigError, DataError, closest
from limbeck_nlp.data.dataset import IGNORED, TextDataset
from limbeck_nlp.data.grammar import Grammar, all_words
from limbeck_nlp.ner.conll import Scheme, TaggedSentence, label_list, read_conll
from limbeck_nlp.qa.grammar import LANGUAGES, translate, translate_sentence
from limbeck_nlp.tokenization import as_tokenizer, train_tokenizer

GRAMMAR_LABELS = label_list(["PER", "LOC", "TIME"])
_ENTITY = {"who": "PER", "place": "LOC", "time": "TIME"}


class TaggedText(TextDataset):
    """Sentences with a tag for each word.

    A sample holds ``inputs``; ``targets``, the label of each word at its first token, -100 elsewhere; ``mask``, the
    first tokens; ``word``, the index of the word there; and ``sentence`` for the evaluator.

    Args:
        sentences: The sentences.
        tokenizer: See :class:`~limbeck_nlp.data.dataset.TextDataset`; a fast one.
        labels: The tags in the order of the model's classes. Default: those of the entity types that occur.
        labelled: Give targets. Without, all of them are -100, as in a language without labels; the sentences keep
            their tags for the evaluator.
        max_length: See there; words beyond it have no token, and count as ``O`` in the evaluation.

    Raises:
        ConfigError: if the tokenizer is no fast one.
        DataError: if a tag is not in ``labels``, or there are no sentences.
    """

    def __init__(
        self,
        sentences: Sequence[TaggedSentence],
        tokenizer: Any,
        *,
        labels: Sequence[str] | None = None,
        labelled: bool = True,
        max_length: int = 128,
    ) -> None:
        occurring = {tag for sentence in sentences for tag in sentence.tags}
        names = label_list(tag[2:] for tag in occurring if tag != "O") if labels is None else tuple(labels)
        unknown = sorted(occurring - set(names)) if labelled else []
        if unknown:
            raise DataError(f"the tag {unknown[0]!r} is not in labels: {closest(unknown[0], names)}")
        super().__init__(tokenizer, len(sentences), max_length=max_length, classes=names)
        if not getattr(self.tokenizer, "is_fast", False):
            raise ConfigError(f"words are found by a fast tokenizer, got {type(self.tokenizer).__name__}")
        self.sentences = tuple(sentences)
        self.labelled = labelled
        self._place = {name: index for index, name in enumerate(names)}

    def sample(self, position: int) -> dict[str, Any]:
        """Return one sentence."""
        sentence = self.sentences[position]
        encoded = self.tokenizer(
            list(sentence.words), is_split_into_words=True, truncation=True, max_length=self.max_length
        )
        words = encoded.word_ids()
        first = [word is not None and word != before for word, before in zip(words, [None, *words[:-1]], strict=True)]
        known = self.labelled and bool(sentence.tags)
        targets = [
            self._place[sentence.tags[word]] if known and begins else IGNORED
            for word, begins in zip(words, first, strict=True)
        ]
        return {
            "inputs": {name: torch.tensor(encoded[name]) for name in self.tokenizer.model_input_names},
            "targets": torch.tensor(targets),
            "mask": torch.tensor(first),
            "word": torch.tensor([word if word is not None else 0 for word in words]),
            "sentence": sentence,
        }


class ColumnText(TaggedText):
    """A file in columns (CoNLL-2002, CoNLL-2003, WikiAnn, MultiCoNER) as :class:`TaggedText`.

    ``repaired`` says how many tags did not fit their scheme and were changed, ``scheme`` which one the file has.

    Args:
        root: Folder of the file.
        file: Its name.
        tokenizer: See :class:`TaggedText`.
        labels: See there.
        labelled: See there.
        word_column: See :func:`~limbeck_nlp.ner.conll.read_conll`, as for the next three.
        tag_column: See there.
        scheme: See there.
        encoding: See there.
        max_length: See :class:`TaggedText`.

    Raises:
        DataError: as there and :func:`~limbeck_nlp.ner.conll.read_conll`.
    """

    def __init__(
        self,
        root: str | Path,
        file: str,
        tokenizer: Any,
        *,
        labels: Sequence[str] | None = None,
        labelled: bool = True,
        word_column: int = 0,
        tag_column: int | None = -1,
        scheme: Scheme = "auto",
        encoding: str | None = None,
        max_length: int = 128,
    ) -> None:
        found = read_conll(
            Path(root) / file, word_column=word_column, tag_column=tag_column, scheme=scheme, encoding=encoding
        )
        self.repaired, self.scheme = found.repaired, found.scheme
        super().__init__(found.sentences, tokenizer, labels=labels, labelled=labelled, max_length=max_length)


class SourceAndTarget(Dataset[dict[str, Any]]):
    """Labelled sentences of one language, each with a random one of another language beside it.

    A sample is the source's, with ``other`` (the inputs of the other sentence) and ``other_mask``. The choice draws
    from PyTorch's global generator.

    Args:
        source: Labelled sentences, or a config of them.
        target: Sentences of the other language; their labels are not looked at.

    Raises:
        ConfigError: if the two have other labels.
    """

    def __init__(self, source: TaggedText | dict[str, Any], target: TaggedText | dict[str, Any]) -> None:
        self.source: TaggedText = build(source)
        self.target: TaggedText = build(target)
        if self.source.classes != self.target.classes:
            raise ConfigError(
                f"source and target must have the same labels, got {self.source.classes} and {self.target.classes}: "
                "give both labels=(...)"
            )
        self.classes = self.source.classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, position: int) -> dict[str, Any]:
        other = self.target[int(torch.randint(len(self.target), ()))]
        return {**self.source[position], "other": other["inputs"], "other_mask": other["mask"]}


@lru_cache(maxsize=2)
def grammar_entity_tokenizer() -> Any:
    """Learn a tokenizer of words from the grammar in all its languages; the same one every time."""
    words = list(all_words())
    return train_tokenizer(
        [*words, *(translate(word, language) for language in LANGUAGES for word in words)],
        kind="words",
        vocabulary_size=1000,
        segments=True,
    )


class GrammarEntities(TaggedText):
    """Sentences of the grammar, in English or a made-up language, with people, places and times tagged.

    Names of people are the same in all languages, and so is the order of words; nothing else is.

    Args:
        size: Number of sentences.
        seed: Which ones are written.
        language: One of :data:`limbeck_nlp.qa.grammar.LANGUAGES`.
        labelled: See :class:`TaggedText`.
        tokenizer: See there; the grammar's own by default.
        max_length: See there.
    """

    def __init__(
        self,
        size: int = 1000,
        *,
        seed: int = 0,
        language: str = "en",
        labelled: bool = True,
        tokenizer: Any = None,
        max_length: int = 32,
    ) -> None:
        super().__init__(
            grammar_entities(size, seed=seed, language=language),
            grammar_entity_tokenizer() if tokenizer is None else as_tokenizer(tokenizer),
            labels=GRAMMAR_LABELS,
            labelled=labelled,
            max_length=max_length,
        )


def grammar_entities(size: int, *, seed: int = 0, language: str = "en") -> list[TaggedSentence]:
    """Write tagged sentences.

    Args:
        size: How many.
        seed: Which ones.
        language: See :class:`GrammarEntities`.
    """
    written = []
    for sentence in Grammar(seed).sentences(size):
        tags, before = [], ""
        for role in sentence.roles:
            kind = _ENTITY.get(role, "")
            tags.append("O" if not kind else f"{'I' if role == before else 'B'}-{kind}")
            before = role
        written.append(TaggedSentence(tuple(translate_sentence(sentence, language)), tuple(tags)))
    return written
