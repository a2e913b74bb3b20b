"""Parallel text: two aligned files, or sentences of the grammar with a translation into a made-up language."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from limbeck_core.checks import check_between
from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.data.dataset import TextDataset
from limbeck_nlp.data.grammar import Grammar, Sentence, all_words
from limbeck_nlp.qa.grammar import translate
from limbeck_nlp.tokenization import as_tokenizer, read_text, train_tokenizer

USUAL, RARE = "aa", "bb"  # the made-up languages whose words are each other's synonyms here


class ParallelText(TextDataset):
    """Two files in which line i of one translates line i of the other, as of Multi30k, IWSLT or WMT.

    A sample holds ``inputs``, the keyword arguments of an encoder-decoder: ``input_ids`` (source and end token),
    ``attention_mask`` and ``decoder_input_ids`` (start token and target); ``targets``, the target and its end token, so
    that position i of the logits predicts ``targets[i]``; ``mask``, all of them; and ``reference``, the target as text.
    Batches come from :func:`~limbeck_nlp.data.dataset.pad_batch` with the model's ``pad_token``.

    Pairs with an empty side are left out, and so are those with a side longer than ``max_length`` unless they are cut;
    ``left_out`` counts both. No language codes are added, as multilingual models want them.

    Args:
        source: Path of the source's file, plain or ``.gz``; UTF-8, one sentence a line.
        target: Path of the target's file.
        tokenizer: See :class:`~limbeck_nlp.data.dataset.TextDataset`; it needs an end token.
        root: Folder of both files; the working directory by default.
        target_tokenizer: Tokenizer of the target, if it has one of its own; of a Marian tokenizer, which holds both,
            the target's half is used anyway.
        start_token: Id with which the decoder starts. Default: the padding token, as in Marian, BART's kin and T5.
        max_length: Longest side in tokens, end token included.
        long: ``"drop"`` leaves longer pairs out, ``"cut"`` cuts them, for an evaluation that must not lose any.

    Raises:
        DataError: if a file is missing, damaged or no UTF-8, or the files differ in their number of lines.
        ConfigError: if the tokenizer has no end token, or ``long`` is unknown.
    """

    def __init__(
        self,
        source: str | Path,
        target: str | Path,
        tokenizer: Any,
        *,
        root: str | Path = "",
        target_tokenizer: Any = None,
        start_token: int | None = None,
        max_length: int = 128,
        long: Literal["drop", "cut"] = "drop",
    ) -> None:
        self._setup(
            *read_parallel(Path(root) / source, Path(root) / target),
            tokenizer=tokenizer,
            target_tokenizer=target_tokenizer,
            start_token=start_token,
            max_length=max_length,
            long=long,
        )

    def _setup(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        tokenizer: Any,
        target_tokenizer: Any = None,
        start_token: int | None = None,
        max_length: int = 128,
        long: Literal["drop", "cut"] = "drop",
        references: Sequence[str] | None = None,
    ) -> None:
        if long not in ("drop", "cut"):
            raise ConfigError(f"long must be 'drop' or 'cut', got {long!r}")
        tokenizer = as_tokenizer(tokenizer)
        self.target_tokenizer = tokenizer if target_tokenizer is None else as_tokenizer(target_tokenizer)
        for name, reader in (("tokenizer", tokenizer), ("target_tokenizer", self.target_tokenizer)):
            if reader.eos_token_id is None:
                raise ConfigError(
                    f"{name} has no end token, by which a model knows that a sentence is over: give it one"
                )
        start = self.target_tokenizer.pad_token_id if start_token is None else start_token
        if start is None:
            raise ConfigError("target_tokenizer has no padding token to start with: give start_token")
        full = [index for index in range(len(sources)) if sources[index].strip() and targets[index].strip()]
        self.left_out = {"empty": len(sources) - len(full), "long": 0}
        read = [sources[index] for index in full], [targets[index] for index in full]
        ids: list[tuple[list[int], list[int]]] = []
        if full:
            ids = list(
                zip(
                    tokenizer(read[0], add_special_tokens=False)["input_ids"],
                    self.target_tokenizer(text_target=read[1], add_special_tokens=False)["input_ids"],
                    strict=True,
                )
            )
        room = max_length - 1
        kept = [number for number in range(len(full)) if long == "cut" or max(map(len, ids[number])) <= room]
        self.left_out["long"] = len(full) - len(kept)
        if full and not kept:
            raise DataError(f"all {len(full)} pairs are longer than max_length={max_length} tokens: raise it")
        super().__init__(tokenizer, len(kept), max_length=max_length)
        self.sources = tuple(read[0][number] for number in kept)
        self.targets = tuple(read[1][number] for number in kept)
        self.references = self.targets if references is None else tuple(references[full[number]] for number in kept)
        self.start_token = int(start)
        self._pairs = [(ids[number][0][:room], ids[number][1][:room]) for number in kept]

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each sample, the longer of its two sides, end token included."""
        return [max(map(len, pair)) + 1 for pair in self._pairs]

    def sample(self, position: int) -> dict[str, Any]:
        """Return one pair."""
        source, target = self._pairs[position]
        ids = torch.tensor([*source, self.tokenizer.eos_token_id])
        targets = torch.tensor([*target, self.target_tokenizer.eos_token_id])
        return {
            "inputs": {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "decoder_input_ids": torch.tensor([self.start_token, *target]),
            },
            "targets": targets,
            "mask": torch.ones_like(targets, dtype=torch.bool),
            "reference": self.references[position],
        }


def read_parallel(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """Read two aligned files, plain or ``.gz``; empty lines stay, so that line numbers do.

    Raises:
        DataError: if one is missing, damaged, no UTF-8 or empty, or their numbers of lines differ.
    """
    lines = [read_text(path) for path in (source, target)]
    if len(lines[0]) != len(lines[1]):
        raise DataError(
            f"{source} has {len(lines[0])} lines and {target} has {len(lines[1])}: line i of one must translate line i "
            "of the other, so check that both are whole and of the same part"
        )
    return lines[0], lines[1]


class GrammarTranslations(ParallelText):
    """Sentences of the grammar and their translation into a made-up language, in which the deed comes last.

    Each word but the names has two translations. The usual one is drawn with the chance ``1 - ambiguity``, so that one
    source has many targets, as in real corpora; ``reference`` always has the usual words, by which a translation can be
    judged.

    Args:
        size: Number of sentences.
        seed: Which ones are written.
        ambiguity: Chance of each word to have its rarer translation.
        max_length: See :class:`ParallelText`.

    Raises:
        ValueError: if ``ambiguity`` is no share.
    """

    def __init__(self, size: int = 2000, *, seed: int = 0, ambiguity: float = 0.3, max_length: int = 32) -> None:
        check_between(ambiguity, "ambiguity", 0.0, 1.0)
        sentences = Grammar(seed).sentences(size)
        draw = np.random.RandomState(seed + 1)
        self._setup(
            [sentence.text for sentence in sentences],
            [_translation(sentence, draw, ambiguity) for sentence in sentences],
            tokenizer=grammar_translation_tokenizer(),
            max_length=max_length,
            references=[_translation(sentence, draw, 0.0) for sentence in sentences],
        )


def _translation(sentence: Sentence, draw: np.random.RandomState, ambiguity: float) -> str:
    words: list[str] = []
    deed: list[str] = []
    for word, role in zip(sentence.words, sentence.roles, strict=True):
        put = word if role == "who" else translate(word, RARE if draw.rand() < ambiguity else USUAL)
        (deed if role == "deed" else words).append(put)
    return " ".join([*words, *deed])


@lru_cache(maxsize=2)
def grammar_translation_tokenizer() -> Any:
    """Learn a tokenizer of words from both languages; the same one every time."""
    words = list(all_words())
    return train_tokenizer(
        [*words, *(translate(word, language) for language in (USUAL, RARE) for word in words)],
        kind="words",
        vocabulary_size=1000,
    )
