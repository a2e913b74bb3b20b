"""What causal language models learn from: running text, and prompts with completions of which only these count.

Position i of a sequence predicts token i + 1. That shift is made here, once: ``targets[i]`` is the token after position
i where it counts, -100 elsewhere, and ``mask`` says where. So a loss compares position with position, and the labels
that transformers' models shift for themselves are not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.data.classification import grammar_tokenizer, read_table
from limbeck_nlp.data.dataset import IGNORED, TextDataset, pad_batch
from limbeck_nlp.data.grammar import Grammar
from limbeck_nlp.data.masked import read_lines


def shifted(ids: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Return targets and mask of a sequence.

    Args:
        ids: Token ids, shape ``(..., L)``.
        counted: Which tokens the model should learn to write, same shape.

    Returns:
        ``targets``: the next token where it counts, -100 elsewhere; ``mask``: where that is. The last position predicts
        nothing.

    >>> shifted(torch.tensor([7, 8, 9]), torch.tensor([False, False, True]))
    (tensor([-100,    9, -100]), tensor([False,  True, False]))
    """
    targets = torch.full_like(ids, IGNORED)
    following = counted[..., 1:].bool()
    targets[..., :-1] = torch.where(following, ids[..., 1:], targets[..., :-1])
    return targets, targets != IGNORED


class PromptedText(TextDataset):
    """Prompts and their completions, from a table with named columns.

    The sequence is ``[BOS] prompt completion [EOS]`` with the tokenizer's own tokens (a missing one is left out); only
    the completion and ``[EOS]`` count. A sample also has ``prompts``, the beginning alone, from which the student may
    go on by itself. Prompt and completion are tokenised apart, so that the border is the same in both.

    Args:
        root: Folder of the file.
        file: A ``.tsv``, ``.csv`` or ``.jsonl`` file (see :func:`~limbeck_nlp.data.classification.read_table`).
        tokenizer: See :class:`~limbeck_nlp.data.dataset.TextDataset`.
        prompt: Column of the prompts.
        completion: Column of the completions.
        separator: Text between them that belongs to the prompt, such as a space for tokenizers that keep spaces.
        max_length: Longest sequence; completions are cut at their end (their ``[EOS]`` is then lost).
        prompt_tokens: Longest prompt, ``[BOS]`` included; longer ones are cut at their beginning. Default: three
            quarters of ``max_length``.

    Raises:
        DataError: if the file is missing or damaged.
        ConfigError: if ``prompt_tokens`` leaves no room for a completion.
    """

    def __init__(
        self,
        root: str | Path,
        file: str,
        tokenizer: Any,
        *,
        prompt: str = "prompt",
        completion: str = "completion",
        separator: str = "",
        max_length: int = 256,
        prompt_tokens: int | None = None,
    ) -> None:
        rows = [(row[0] + separator, row[1]) for row in read_table(Path(root) / file, [prompt, completion])]
        self._setup(rows, tokenizer, max_length, prompt_tokens)

    def _setup(
        self, rows: Sequence[tuple[str, str]], tokenizer: Any, max_length: int, prompt_tokens: int | None
    ) -> None:
        TextDataset.__init__(self, tokenizer, len(rows), max_length=max_length)
        self.rows = rows
        self.prompt_tokens = max_length * 3 // 4 if prompt_tokens is None else prompt_tokens
        if not 1 <= self.prompt_tokens < max_length - 1:
            raise ConfigError(
                f"prompt_tokens must lie between 1 and {max_length - 2}, so that a completion fits into max_length="
                f"{max_length}, got {self.prompt_tokens}"
            )

    def sample(self, position: int) -> dict[str, Any]:
        """Return a sequence, its targets, and the prompt alone."""
        prompt, completion = self.rows[position]
        tokenizer = self.tokenizer
        begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        room = self.prompt_tokens - len(begin)
        asked = [*begin, *tokenizer(prompt, add_special_tokens=False)["input_ids"][-room:]]
        answer = [*tokenizer(completion, add_special_tokens=False)["input_ids"], *end]
        ids = torch.tensor([*asked, *answer][: self.max_length])
        counted = torch.arange(len(ids)) >= len(asked)
        targets, mask = shifted(ids, counted)
        prompts = torch.tensor(asked)
        return {
            "inputs": {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            "targets": targets,
            "mask": mask,
            "prompts": {"input_ids": prompts, "attention_mask": torch.ones_like(prompts)},
        }


class GrammarLines(PromptedText):
    """Sentences of the grammar: the first words are the prompt, the rest its completion.

    Args:
        size: Number of sentences.
        seed: Which ones are written.
        words: Words of the prompt.
        tokenizer: See :class:`PromptedText`; the grammar's own by default.
        max_length: See there.
    """

    def __init__(
        self, size: int = 2000, *, seed: int = 0, words: int = 3, tokenizer: Any = None, max_length: int = 32
    ) -> None:
        sentences = [sentence.words for sentence in Grammar(seed).sentences(size)]
        rows = [(" ".join(parts[:words]), " ".join(parts[words:])) for parts in sentences]
        self._setup(rows, grammar_tokenizer() if tokenizer is None else tokenizer, max_length, None)


class RunningText(TextDataset):
    """A text file as one stream of tokens, cut into pieces of equal length; every token counts.

    Lines are joined by the tokenizer's end token. What is left over at the end is left out.

    Args:
        root: Folder of the file.
        file: Its name; UTF-8, one text a line.
        tokenizer: See :class:`~limbeck_nlp.data.dataset.TextDataset`; it needs an end token.
        max_length: Tokens of a piece.

    Raises:
        DataError: if the file is missing, or shorter than one piece.
        ConfigError: if the tokenizer has no end token.
    """

    def __init__(self, root: str | Path, file: str, tokenizer: Any, *, max_length: int = 256) -> None:
        from limbeck_nlp.tokenization import as_tokenizer  # noqa: PLC0415  not loaded for the other data sets

        tokenizer = as_tokenizer(tokenizer)
        if tokenizer.eos_token_id is None:
            raise ConfigError("the tokenizer has no end token, which RunningText puts between texts: give it one")
        stream: list[int] = []
        for ids in tokenizer(read_lines(Path(root) / file), add_special_tokens=False)["input_ids"]:
            stream += [*ids, tokenizer.eos_token_id]
        pieces = len(stream) // max_length
        if not pieces:
            raise DataError(f"{Path(root) / file} holds {len(stream)} tokens, less than one piece of {max_length}")
        super().__init__(tokenizer, pieces, max_length=max_length)
        self._stream = torch.tensor(stream[: pieces * max_length]).view(pieces, max_length)

    def sample(self, position: int) -> dict[str, Any]:
        """Return a piece and its targets."""
        ids = self._stream[position]
        targets, mask = shifted(ids, torch.ones_like(ids))
        return {"inputs": {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, "targets": targets, "mask": mask}


def pad_prompted(samples: Sequence[Mapping[str, Any]], *, pad_token: int = 0, multiple_of: int = 1) -> dict[str, Any]:
    """Make a batch of prompted text: sequences padded on the right, ``prompts`` on the left, where generation goes on.

    Args:
        samples: Samples of :class:`PromptedText`.
        pad_token: See :func:`~limbeck_nlp.data.dataset.pad_batch`.
        multiple_of: See there; of the sequences, not of the prompts.
    """
    rest = [{name: value for name, value in sample.items() if name != "prompts"} for sample in samples]
    batch = pad_batch(rest, pad_token=pad_token, multiple_of=multiple_of)
    if "prompts" in samples[0]:
        batch["prompts"] = pad_batch([sample["prompts"] for sample in samples], pad_token=pad_token, side="left")
    return batch
