"""Outlier scores of texts: how unexpected a language model finds them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import at_least_float32
from limbeck_nlp.data.dataset import IGNORED, pad_batch
from limbeck_nlp.models import pad_token_of
from limbeck_nlp.ood.data import WholeText

LOG_MAX = math.log(np.finfo(np.float64).max)  # above it a perplexity is infinite


def log_perplexity(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the next token for each text.

    Its exponential is the perplexity; both rank texts alike, and this one does not overflow.

    Args:
        logits: Shape ``(N, L, V)``.
        targets: The next token at each position, -100 where none is scored, shape ``(N, L)``.

    Returns:
        Nats a token, shape ``(N,)``, float64. A text without a scored token (empty, or one token without a begin token)
        cannot be judged and counts as an outlier: infinity.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    if logits.ndim != 3 or logits.shape[:2] != targets.shape:
        raise ShapeError(f"logits must have shape {(*targets.shape, 'V')}, got {tuple(logits.shape)}")
    kept = targets != IGNORED
    nll = cross_entropy(
        at_least_float32(logits).transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
    ).double()
    count = kept.sum(1)
    mean = torch.where(kept, nll, torch.zeros_like(nll)).sum(1) / count.clamp_min(1)
    return torch.where(count > 0, mean, torch.full_like(mean, math.inf))


def perplexity(scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the perplexities of log-perplexities; what would overflow is infinite."""
    values = np.asarray(scores, dtype=np.float64)
    return np.where(values > LOG_MAX, math.inf, np.exp(np.minimum(values, LOG_MAX)))


@torch.no_grad()
def score_texts(
    model: nn.Module,
    texts: Sequence[str],
    tokenizer: Any,
    *,
    batch_size: int = 32,
    max_length: int = 128,
    include_bos: bool = False,
    include_eos: bool = False,
) -> npt.NDArray[np.float64]:
    """Score texts: the higher, the less they are like what the model learnt from.

    Args:
        model: A causal model of transformers; it is run in evaluation mode and left in the mode it had.
        texts: The texts.
        tokenizer: Its tokenizer.
        batch_size: Texts at once; texts of like length go together.
        max_length: See :class:`~limbeck_nlp.ood.data.WholeText`.
        include_bos: See there.
        include_eos: See there.

    Returns:
        :func:`log_perplexity` of each text, in their order.
    """
    data = WholeText(texts, tokenizer, max_length=max_length, include_bos=include_bos, include_eos=include_eos)
    device = next(model.parameters()).device
    scores = np.empty(len(data))
    training = model.training
    model.eval()
    try:
        for positions in _batches([len(text) for text in data.texts], batch_size):
            batch = pad_batch([data[position] for position in positions], pad_token=pad_token_of(model))
            output: Any = model(**{name: value.to(device) for name, value in batch["inputs"].items()})
            scores[positions] = log_perplexity(output.logits, batch["targets"].to(device)).cpu().numpy()
    finally:
        model.train(training)
    return scores


def _batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    order = sorted(range(len(lengths)), key=lambda position: lengths[position])
    for start in range(0, len(order), size):
        yield order[start : start + size]
