"""Texts whose words are hidden and to be guessed: what masked language models learn from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck_core.checks import check_between
from limbeck_core.errors import ConfigError, DataError, closest
from limbeck_nlp.data.classification import grammar_tokenizer
from limbeck_nlp.data.dataset import IGNORED, TextDataset
from limbeck_nlp.data.grammar import corpus


class MaskedText(TextDataset):
    """Texts with some tokens hidden, newly drawn each time from the sample's own seed.

    Of the chosen tokens 80 % become the mask token, 10 % another token, and 10 % stay; special tokens are never chosen.
    ``targets`` holds the hidden ids and -100 elsewhere, ``mask`` where they are. With ``share=0`` nothing is hidden and
    there are no targets, as MiniLM and TinyBERT want it.

    Args:
        texts: The texts.
        tokenizer: See :class:`~limbeck_nlp.data.dataset.TextDataset`; it needs a mask token unless ``share`` is 0.
        share: Share of the tokens that are chosen.
        max_length: See there.

    Raises:
        ConfigError: if the tokenizer has no mask token.
        ValueError: if ``share`` is no share.

    Reference:
        Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding,
        arXiv:1810.04805, section 3.1; newly drawn each epoch as in Liu et al., RoBERTa, arXiv:1907.11692, section 4.1.
    """

    def __init__(self, texts: Sequence[str], tokenizer: Any, *, share: float = 0.15, max_length: int = 128) -> None:
        check_between(share, "share", 0.0, 1.0)
        super().__init__(tokenizer, len(texts), max_length=max_length)
        if share and self.tokenizer.mask_token_id is None:
            raise ConfigError("the tokenizer has no mask token, which MaskedText hides words with: give it one")
        self.texts = texts
        self.share = share

    def sample(self, position: int) -> dict[str, Any]:
        """Return one text with words hidden."""
        inputs = self.encode(self.texts[position])
        if not self.share:
            return {"inputs": inputs}
        ids, targets = hide(inputs["input_ids"], self.tokenizer, share=self.share)
        return {"inputs": {**inputs, "input_ids": ids}, "targets": targets, "mask": targets != IGNORED}


class TextLines(MaskedText):
    """A text file, one text a line; empty lines are left out. Arguments but the first two as :class:`MaskedText`.

    Args:
        root: Folder of the file.
        file: Its name; UTF-8.
        tokenizer: See :class:`MaskedText`.
        share: See there.
        max_length: See there.

    Raises:
        DataError: if the file is missing, empty, or no UTF-8.
    """

    def __init__(
        self, root: str | Path, file: str, tokenizer: Any, *, share: float = 0.15, max_length: int = 128
    ) -> None:
        super().__init__(read_lines(Path(root) / file), tokenizer, share=share, max_length=max_length)


class GrammarText(MaskedText):
    """Sentences of the grammar with words hidden.

    Args:
        size: Number of sentences.
        seed: Which ones are written.
        tokenizer: See :class:`MaskedText`; the grammar's own by default.
        share: See there.
        max_length: See there.
    """

    def __init__(
        self,
        size: int = 2000,
        *,
        seed: int = 0,
        tokenizer: Any = None,
        share: float = 0.15,
        max_length: int = 32,
    ) -> None:
        tokenizer = grammar_tokenizer() if tokenizer is None else tokenizer
        super().__init__(corpus(size, seed=seed), tokenizer, share=share, max_length=max_length)


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file that are not empty.

    Raises:
        DataError: if it is missing, empty, or no UTF-8.
    """
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no file {path}; of {path.parent}, {closest(path.name, sorted(siblings))}")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}") from error
    if not any(lines):
        raise DataError(f"{path} holds no text: expected one text a line")
    return [line for line in lines if line]


def hide(ids: Tensor, tokenizer: Any, *, share: float) -> tuple[Tensor, Tensor]:
    """Hide some tokens; draws from PyTorch's global generator.

    Args:
        ids: Ids of one text, shape ``(L,)``.
        tokenizer: Says which are special.
        share: Chance of each token to be chosen.

    Returns:
        The ids with words hidden, and the targets: the hidden ids, -100 elsewhere.
    """
    special = torch.tensor(tokenizer.get_special_tokens_mask(ids.tolist(), already_has_special_tokens=True)).bool()
    chosen = (torch.rand(len(ids)) < share) & ~special
    fate = torch.rand(len(ids))
    others = torch.randint(len(tokenizer), (len(ids),))
    hidden = torch.where(chosen & (fate < 0.8), torch.full_like(ids, tokenizer.mask_token_id), ids)
    hidden = torch.where(chosen & (fate >= 0.9), others, hidden)
    return hidden, torch.where(chosen, ids, torch.full_like(ids, IGNORED))
