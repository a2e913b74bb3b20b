"""Whole texts for a language model, each with whether it is an outlier."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from limbeck_core.errors import ConfigError, ShapeError
from limbeck_nlp.data.classification import grammar_tokenizer
from limbeck_nlp.data.dataset import TextDataset
from limbeck_nlp.data.grammar import ROLES, Grammar
from limbeck_nlp.language_models.data import shifted
from limbeck_nlp.ood.layouts import read_ood

_KINDS = 3  # concepts of one kind, for deeds and things


class WholeText(TextDataset):
    """Texts as a language model reads them, each from its beginning to its end; every token counts.

    A sample has ``inputs``, ``targets`` (the next token, -100 after the last), ``mask``, ``outlier`` and ``ids``. The
    attention mask comes from the length, so a padding token that is also the end token does no harm, and padding is
    neither learnt nor scored (in the released code it is learnt, and one padding token a text is scored).

    Args:
        texts: The texts.
        tokenizer: See :class:`~limbeck_nlp.data.dataset.TextDataset`.
        outliers: Whether each is an outlier. Default: none is.
        max_length: Longest input in tokens; longer texts are cut.
        include_bos: Put the tokenizer's begin token first, so that the first word is learnt and scored too. By default
            it is not, as in the released code, and a text of one token has no score.
        include_eos: Put the end token last, so that where a text ends is learnt and scored.

    Raises:
        ConfigError: if the tokenizer lacks the begin or end token that is asked for.
        ShapeError: if the numbers of texts and flags differ.
    """

    def __init__(
        self,
        texts: Sequence[str],
        tokenizer: Any,
        *,
        outliers: Sequence[bool] | None = None,
        max_length: int = 128,
        include_bos: bool = False,
        include_eos: bool = False,
    ) -> None:
        super().__init__(tokenizer, len(texts), max_length=max_length)
        self.texts = list(texts)
        self.outliers = [False] * len(texts) if outliers is None else [bool(flag) for flag in outliers]
        if len(self.outliers) != len(self.texts):
            raise ShapeError(f"outliers must have one flag a text, {len(texts)}, got {len(self.outliers)}")
        self._begin = self._special("bos_token_id", include_bos)
        self._end = self._special("eos_token_id", include_eos)

    def _special(self, name: str, wanted: bool) -> list[int]:
        if not wanted:
            return []
        token = getattr(self.tokenizer, name, None)
        if token is None:
            raise ConfigError(f"the tokenizer has no {name}: leave out include_{name[:3]}, or give it one")
        return [int(token)]

    def sample(self, position: int) -> dict[str, Any]:
        """Return one text."""
        inner = self.tokenizer(self.texts[position], add_special_tokens=False)["input_ids"]
        room = self.max_length - len(self._begin) - len(self._end)
        # an empty text is one token, so that a model can read it; no token follows, so none is scored
        ids = torch.tensor([*self._begin, *inner[:room], *self._end] or [0], dtype=torch.int64)
        targets, mask = shifted(ids, torch.ones_like(ids))
        return {
            "inputs": {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            "targets": targets,
            "mask": mask,
            "outlier": self.outliers[position],
        }


class OodText(WholeText):
    """A data set in one of the usual layouts.

    Args:
        root: Its folder.
        layout: See :func:`~limbeck_nlp.ood.layouts.read_ood`.
        tokenizer: See :class:`WholeText`.
        train: The texts to learn from, without outliers; or the test part with them.
        inside: See :func:`~limbeck_nlp.ood.layouts.read_ood`.
        max_length: See :class:`WholeText`.
        include_bos: See there.
        include_eos: See there.

    Raises:
        ConfigError: as :func:`~limbeck_nlp.ood.layouts.read_ood`.
        DataError: likewise.
    """

    def __init__(
        self,
        root: str | Path,
        layout: str,
        tokenizer: Any,
        *,
        train: bool = True,
        inside: str | None = None,
        max_length: int = 128,
        include_bos: bool = False,
        include_eos: bool = False,
    ) -> None:
        found = read_ood(root, layout, "train" if train else "test", inside=inside)
        super().__init__(
            [text for text, _ in found],
            tokenizer,
            outliers=[outlier for _, outlier in found],
            max_length=max_length,
            include_bos=include_bos,
            include_eos=include_eos,
        )


class GrammarOod(WholeText):
    """Sentences of the grammar, and outliers made of the same words, so that no single word gives one away.

    Args:
        size: Number of sentences.
        seed: Which ones are written.
        outliers: Share of outliers: 0 to learn from, 0.5 to judge by, something between for a corpus to pre-train on.
        kind: ``"order"``: an outlier has two neighbouring words exchanged. ``"pairing"``: inside are sentences whose
            deed and thing are of one kind, an outlier pairs others; that takes long to learn.
        tokenizer: See :class:`WholeText`; the grammar's own by default.
        max_length: See there.

    Raises:
        ConfigError: if ``outliers`` is no share, or ``kind`` is unknown.
    """

    def __init__(
        self,
        size: int = 2000,
        *,
        seed: int = 0,
        outliers: float = 0.0,
        kind: Literal["order", "pairing"] = "order",
        tokenizer: Any = None,
        max_length: int = 32,
    ) -> None:
        if not 0.0 <= outliers <= 1.0:
            raise ConfigError(f"outliers must be a share from 0 to 1, got {outliers!r}")
        if kind not in ("order", "pairing"):
            raise ConfigError(f"kind must be 'order' or 'pairing', got {kind!r}")
        outside, draw, grammar = round(outliers * size), random.Random(seed), Grammar(seed)
        flags = [position < outside for position in range(size)]
        draw.shuffle(flags)
        write = _ordered if kind == "order" else _paired
        super().__init__(
            [write(grammar, flag, draw) for flag in flags],
            grammar_tokenizer() if tokenizer is None else tokenizer,
            outliers=flags,
            max_length=max_length,
            include_bos=True,
            include_eos=True,
        )


def _ordered(grammar: Grammar, outlier: bool, draw: random.Random) -> str:
    words = list(grammar.sentence().words)
    if outlier:
        first = draw.randrange(len(words) - 1)
        words[first : first + 2] = words[first + 1], words[first]
    return " ".join(words)


def _paired(grammar: Grammar, outlier: bool, draw: random.Random) -> str:
    while True:
        sentence = grammar.sentence()
        deed, thing = (sentence.concepts[ROLES.index(role)] // _KINDS for role in ("deed", "thing"))
        if (deed != thing) == outlier:
            return sentence.text
