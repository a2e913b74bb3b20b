"""Sequence-level distillation: let the teacher write completions once, keep the sound ones, train on them as on data.

It is the only distillation between models whose vocabularies differ, for nothing but text goes from one to the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.data.dataset import pad
from limbeck_nlp.evaluation.bleu import closest_to_reference
from limbeck_nlp.language_models.generation import complete
from limbeck_nlp.tokenization import as_tokenizer


@dataclass(frozen=True)
class Filter:
    """Which completions are worth learning from.

    Args:
        shortest: Least length in words, as a share of the reference's (or of the prompt's, where there is none).
        longest: Largest share. Kim and Rush use none; 0.5 to 2 is usual for translation. ``None`` does not ask.
        repeats: A run of words may follow itself at most so many times.
        copies: Whether a completion that only copies its prompt is kept.

    Raises:
        ConfigError: if a number is out of range.
    """

    shortest: float | None = 0.5
    longest: float | None = 2.0
    repeats: int = 2
    copies: bool = False

    def __post_init__(self) -> None:
        """Refuse what no completion can fulfil."""
        low, high = self.shortest or 0.0, self.longest if self.longest is not None else float("inf")
        if not 0 <= low <= high or self.repeats < 1:
            raise ConfigError(
                f"Filter needs 0 <= shortest <= longest and repeats >= 1, got {self.shortest}, {self.longest} and "
                f"{self.repeats}"
            )

    def refuses(self, prompt: str, completion: str, reference: str | None = None) -> str | None:
        """Say why a completion is not kept: ``"empty"``, ``"copy"``, ``"length"``, ``"repeats"``; ``None`` keeps it."""
        words = completion.split()
        if not words:
            return "empty"
        if not self.copies and words == prompt.split():
            return "copy"
        share = len(words) / max(len((reference if reference is not None else prompt).split()), 1)
        if (self.shortest is not None and share < self.shortest) or (self.longest is not None and share > self.longest):
            return "length"
        return "repeats" if _repeats(words, self.repeats) else None


def _repeats(words: Sequence[str], allowed: int) -> bool:
    """Whether a run of up to four words stands more than ``allowed`` times in a row."""
    for size in range(1, 5):
        streak = 0  # k runs in a row agree with what stands before them at (k - 2) * size + 1 places
        for start in range(size, len(words) - size + 1):
            same = words[start : start + size] == words[start - size : start]
            streak = streak + 1 if same else 0
            if streak and (streak - 1) // size + 2 > allowed:
                return True
    return False


def write_completions(
    teacher: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    path: str | Path,
    *,
    references: Sequence[str] | None = None,
    interpolate: bool = False,
    separator: str = "",
    batch_size: int = 32,
    max_new_tokens: int = 128,
    beams: int = 5,
    temperature: float | None = None,
    keep: Filter | None = None,
) -> dict[str, int]:
    """Let a teacher complete prompts and write what is kept as ``.jsonl``, for ``PromptedText``.

    Prompts are sorted by length for the search and written in their own order. The file appears when it is whole.

    Args:
        teacher: A causal model of transformers.
        tokenizer: The teacher's.
        prompts: The prompts.
        path: The file; ``prompt``, ``completion`` and ``id`` (the prompt's number) on each line.
        references: The data's own completions, against which lengths are judged and by which ``interpolate`` chooses.
        interpolate: Of the beam's hypotheses take the one of the highest sentence BLEU against the reference instead of
            the most probable one (sequence-level interpolation); needs sacrebleu.
        separator: As in ``PromptedText``: text after the prompt that belongs to it.
        batch_size: Prompts at a time.
        max_new_tokens: Longest completion.
        beams: Beams of the search; 1 is greedy.
        temperature: Sample at this temperature instead of searching.
        keep: What is kept; all that is not empty by default.

    Returns:
        How many were ``"kept"``, and how many were left out for each reason.

    Raises:
        DataError: if nothing is kept, or the numbers of prompts and references differ.
        ConfigError: if ``interpolate`` lacks references or beams, or is asked for with a temperature; and as
            :func:`~limbeck_nlp.language_models.generation.complete`.
        MissingDependency: if ``interpolate`` is asked for without sacrebleu.

    Reference:
        Kim and Rush, Sequence-Level Knowledge Distillation, arXiv:1606.07947, sections 3.2 and 3.3.
    """
    if references is not None and len(references) != len(prompts):
        raise DataError(f"there are {len(prompts)} prompts and {len(references)} references: give one for each")
    if interpolate and (references is None or beams < 2 or temperature is not None):
        raise ConfigError(
            "interpolate chooses among the hypotheses of a search by a reference: give references and beams > 1, and "
            "no temperature"
        )
    tokenizer, path = as_tokenizer(tokenizer), Path(path)
    keep = keep if keep is not None else Filter(shortest=None, longest=None, repeats=10**6, copies=True)
    found: dict[int, str] = {}
    counts: dict[str, int] = {"kept": 0}
    for numbers, texts in _written(
        teacher,
        tokenizer,
        [prompt + separator for prompt in prompts],
        batch_size,
        max_new_tokens,
        beams,
        temperature,
        beams if interpolate else 1,
    ):
        for number, candidates in zip(numbers, texts, strict=True):
            reference = None if references is None else references[number]
            best = closest_to_reference(candidates, reference) if interpolate and reference is not None else None
            text = candidates[0] if best is None else best
            why = keep.refuses(prompts[number], text, reference)
            counts[why or "kept"] = counts.get(why or "kept", 0) + 1
            if why is None:
                found[number] = text
    if not found:
        raise DataError(
            f"none of the {len(prompts)} completions is kept ({counts}): loosen the filter, or train the teacher"
        )
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", encoding="utf-8") as file:
        for number in sorted(found):
            entry = {"prompt": prompts[number], "completion": found[number], "id": number}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return counts


def _written(
    teacher: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    batch_size: int,
    max_new_tokens: int,
    beams: int,
    temperature: float | None,
    returned: int,
) -> Iterator[tuple[list[int], list[list[str]]]]:
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = [torch.tensor([*begin, *tokenizer(text, add_special_tokens=False)["input_ids"]]) for text in prompts]
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    device = next((parameter.device for parameter in teacher.parameters()), torch.device("cpu"))
    filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        rows = [ids[number] for number in numbers]
        inputs = pad(rows, filler, side="left").to(device)
        attention = pad([torch.ones_like(row) for row in rows], 0, side="left").to(device)
        written = complete(
            teacher,
            {"input_ids": inputs, "attention_mask": attention},
            end_token=tokenizer.eos_token_id,
            pad_token=filler,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            beams=1 if temperature is not None else beams,
            returned=returned,
        )
        texts = [text.strip() for text in tokenizer.batch_decode(written.tolist(), skip_special_tokens=True)]
        yield numbers, [texts[first : first + returned] for first in range(0, len(texts), returned)]
