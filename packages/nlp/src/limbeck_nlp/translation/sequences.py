"""Sequence-level distillation: the teacher translates the training sources once, the student learns from that text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from limbeck_core.errors import ConfigError, DataError
from limbeck_nlp.data.dataset import pad
from limbeck_nlp.evaluation.bleu import closest_to_reference
from limbeck_nlp.language_models.completions import Filter
from limbeck_nlp.tokenization import as_tokenizer
from limbeck_nlp.translation.generation import write


def write_translations(
    teacher: nn.Module,
    tokenizer: Any,
    sources: Sequence[str],
    source_file: str | Path,
    target_file: str | Path,
    *,
    target_tokenizer: Any = None,
    references: Sequence[str] | None = None,
    interpolate: bool = False,
    batch_size: int = 32,
    max_length: int = 128,
    beams: int = 5,
    length_penalty: float = 1.0,
    keep: Filter | None = None,
) -> dict[str, int]:
    """Let a teacher translate and write what is kept as two aligned files, for ``ParallelText``.

    Sources are sorted by length for the search and written in their own order. Both files appear when they are whole.

    Args:
        teacher: An encoder-decoder of transformers.
        tokenizer: The teacher's, for the source.
        sources: The sources.
        source_file: The file of the sources whose translation is kept.
        target_file: The file of the translations.
        target_tokenizer: The teacher's for the target, if it has one of its own.
        references: The data's own translations, against which lengths are judged and by which ``interpolate`` chooses.
        interpolate: Of the beam's hypotheses take the one of the highest sentence BLEU against the reference instead of
            the most probable one (sequence-level interpolation); needs sacrebleu.
        batch_size: Sources at a time.
        max_length: Longest source and longest translation in tokens; longer sources are cut.
        beams: Beams of the search; 1 is greedy.
        length_penalty: See :func:`~limbeck_nlp.translation.generation.write`; take that of the test.
        keep: What is kept; all that is not empty by default.

    Returns:
        How many were ``"kept"``, and how many were left out for each reason.

    Raises:
        DataError: if nothing is kept, or the numbers of sources and references differ.
        ConfigError: if ``interpolate`` lacks references or beams; and as ``write``.
        MissingDependency: if ``interpolate`` is asked for without sacrebleu.

    Reference:
        Kim and Rush, Sequence-Level Knowledge Distillation, arXiv:1606.07947, sections 3.2 and 3.3.
    """
    if references is not None and len(references) != len(sources):
        raise DataError(f"there are {len(sources)} sources and {len(references)} references: give one for each")
    if interpolate and (references is None or beams < 2):
        raise ConfigError("interpolate chooses among several hypotheses by a reference: give references and beams > 1")
    reader = as_tokenizer(tokenizer)
    writer = reader if target_tokenizer is None else as_tokenizer(target_tokenizer)
    keep = keep if keep is not None else Filter(shortest=None, longest=None, repeats=10**6, copies=True)
    ids = [
        torch.tensor([*row[: max_length - 1], reader.eos_token_id])
        for row in reader(list(sources), add_special_tokens=False)["input_ids"]
    ]
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    device = next((parameter.device for parameter in teacher.parameters()), torch.device("cpu"))
    found: dict[int, str] = {}
    counts: dict[str, int] = {"kept": 0}
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        rows = [ids[number] for number in numbers]
        tokens = write(
            teacher,
            {
                "input_ids": pad(rows, reader.pad_token_id).to(device),
                "attention_mask": pad([torch.ones_like(row) for row in rows], 0).to(device),
            },
            beams=beams,
            returned=beams if interpolate else 1,
            length_penalty=length_penalty,
            max_new_tokens=max_length,
        )
        for number, hypotheses in zip(numbers, tokens, strict=True):
            texts = [text.strip() for text in writer.batch_decode(hypotheses.tolist(), skip_special_tokens=True)]
            reference = None if references is None else references[number]
            text = closest_to_reference(texts, reference) if interpolate and reference is not None else texts[0]
            why = keep.refuses(sources[number], text, reference)
            counts[why or "kept"] = counts.get(why or "kept", 0) + 1
            if why is None:
                found[number] = text
    if not found:
        raise DataError(
            f"none of the {len(sources)} translations is kept ({counts}): loosen the filter, or train the teacher"
        )
    kept = sorted(found)
    _write_lines(Path(source_file), [sources[number] for number in kept])
    _write_lines(Path(target_file), [found[number] for number in kept])
    return counts


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write a file that is whole or not there at all; a line break inside of a line would shift all that follow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(" ".join(line.split()) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
