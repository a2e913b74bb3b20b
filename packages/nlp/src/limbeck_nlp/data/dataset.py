"""What every data set of text gives, and how its samples become a batch.

A sample is a mapping: ``inputs``, the keyword arguments of a model of transformers (``input_ids``, ``attention_mask``,
``token_type_ids`` where the model has segments), as 1-D tensors of the sample's own length; ``targets``, a class or one
label a token; ``mask``, where the targets are per token: which positions count; and ``ids``, which a subset keeps.

``mask`` says which *logits* count, so a classification of whole texts has none. A match between hidden states, queries
or attention counts tokens that are no padding: ``extras=dict(mask=Tap("inputs", of="batch", pick="attention_mask"))``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from limbeck_core.errors import ConfigError, DataError, ShapeError
from limbeck_nlp.tokenization import as_tokenizer

Ids = npt.NDArray[np.int64]
IGNORED = -100  # the label that torch and transformers leave out of a cross-entropy
_TOKENS = ("input_ids", "decoder_input_ids")
_LABELS = ("targets", "labels")


class TextDataset(Dataset[dict[str, Any]], ABC):
    """Base of the data sets of text.

    Args:
        tokenizer: A tokenizer of transformers, the path of a local folder, or a config of one.
        length: Number of samples.
        max_length: Longest input in tokens; longer ones are cut.
        classes: Names of the classes, by label; none where there are no classes.
        ids: Id of each sample. Default: its position.

    Raises:
        ConfigError: if ``max_length`` leaves no room for text.
        DataError: if there are no samples.
    """

    def __init__(
        self,
        tokenizer: Any,
        length: int,
        *,
        max_length: int = 128,
        classes: Sequence[str] = (),
        ids: Ids | None = None,
    ) -> None:
        if max_length < 4:
            raise ConfigError(f"max_length must be at least 4 tokens, special ones included, got {max_length}")
        if length < 1:
            raise DataError(f"{type(self).__name__} holds no text: check its files and filters")
        self.tokenizer = as_tokenizer(tokenizer)
        self.max_length = max_length
        self.classes = tuple(classes)
        self.ids: Ids = np.arange(length, dtype=np.int64) if ids is None else ids

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> dict[str, Any]:
        identity = int(self.ids[position])  # also refuses a position outside
        return {**self.sample(int(position) % len(self)), "ids": identity}

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each sample; the first time all samples are made for it, which draws no random numbers."""
        with torch.random.fork_rng(devices=[]):
            return [len(self.sample(position)["inputs"]["input_ids"]) for position in range(len(self))]

    @abstractmethod
    def sample(self, position: int) -> dict[str, Any]:
        """Return one sample without its id; positions count from 0."""

    def encode(self, text: str, pair: str | None = None) -> dict[str, Tensor]:
        """Turn a text, or a pair, into the keyword arguments of a model, as 1-D tensors."""
        return encode(self.tokenizer, text, pair, max_length=self.max_length)


def encode(tokenizer: Any, text: str, pair: str | None = None, *, max_length: int) -> dict[str, Tensor]:
    """Turn a text, or a pair, into the keyword arguments of a model.

    Args:
        tokenizer: A tokenizer of transformers.
        text: The text; an empty one is special tokens only.
        pair: Second text.
        max_length: Longest input in tokens; of a pair, the longer text is cut first.

    Returns:
        1-D int64 tensors, by the names that the tokenizer's ``model_input_names`` say.
    """
    encoded = tokenizer(text, pair, truncation=True, max_length=max_length)
    return {name: torch.tensor(values, dtype=torch.int64) for name, values in encoded.items()}


def pad_batch(
    samples: Sequence[Mapping[str, Any]],
    *,
    pad_token: int = 0,
    side: Literal["right", "left"] = "right",
    multiple_of: int = 1,
) -> dict[str, Any]:
    """Make a batch of samples of different length: ``collate_fn=dict(type=pad_batch, pad_token=...)``.

    Tensors of one axis are padded to the longest of the batch: ``input_ids`` and ``decoder_input_ids`` with
    ``pad_token``, labels (``targets``, ``labels``) with -100, everything else with 0 (false). Mappings such as
    ``inputs`` are gone through. Numbers become one tensor; tensors of other ranks must agree in shape and are stacked;
    other objects stay a list.

    Args:
        samples: The samples, with the same names.
        pad_token: The tokenizer's ``pad_token_id``: 0 for BERT and for tokenizers learnt here, 1 for RoBERTa.
        side: Where padding stands. Generation from a causal model wants ``"left"``.
        multiple_of: Lengths are rounded up to a multiple of it.

    Raises:
        ConfigError: if ``side`` or ``multiple_of`` is out of range.
        ShapeError: if samples differ in their names, or stacked tensors in their shapes.
    """
    if side not in ("right", "left") or multiple_of < 1:
        raise ConfigError(f"side must be 'right' or 'left' and multiple_of at least 1, got {side!r} and {multiple_of}")
    first = samples[0]
    for number, sample in enumerate(samples):
        if sample.keys() != first.keys():
            raise ShapeError(
                f"samples of one batch must have the same names, sample 0 has {sorted(first)} and sample {number} "
                f"{sorted(sample)}: give every sample of the data set all of them"
            )
    batch: dict[str, Any] = {}
    for name, value in first.items():
        values = [sample[name] for sample in samples]
        if isinstance(value, Mapping):
            batch[name] = pad_batch(values, pad_token=pad_token, side=side, multiple_of=multiple_of)
        elif isinstance(value, Tensor) and value.ndim == 1:
            filler = pad_token if name in _TOKENS else IGNORED if name in _LABELS else 0
            batch[name] = pad(values, filler, side=side, multiple_of=multiple_of)
        elif isinstance(value, (Tensor, int, float, bool, np.number)):
            batch[name] = _stacked(values, name)
        else:
            batch[name] = values
    return batch


def pad(
    rows: Sequence[Tensor], filler: int, *, side: Literal["right", "left"] = "right", multiple_of: int = 1
) -> Tensor:
    """Stack 1-D tensors of different length, shape ``(N, longest)``.

    Args:
        rows: The tensors.
        filler: What stands where a row has ended.
        side: Where it stands.
        multiple_of: The length is rounded up to a multiple of it.
    """
    longest = max(len(row) for row in rows)
    longest = -(-longest // multiple_of) * multiple_of
    out = rows[0].new_full((len(rows), longest), filler)
    for index, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        out[index, place] = row
    return out


def _stacked(values: list[Any], name: str) -> Tensor:
    tensors = [torch.as_tensor(value) for value in values]
    shapes = sorted({str(tuple(tensor.shape)) for tensor in tensors})
    if len(shapes) > 1:
        raise ShapeError(f"{name!r} cannot be stacked into a batch, its shapes are {', '.join(shapes[:6])}")
    return torch.stack(tensors)
