"""From scores of tokens to the words of an answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck_core.errors import ShapeError


@dataclass(frozen=True)
class Span:
    """The best span of one window.

    Args:
        start: Its first token; 0 with ``score`` minus infinity if no span is allowed.
        end: Its last token.
        score: Sum of the two logits.
        null_score: The same of the first token, which stands for "no answer".
    """

    start: int
    end: int
    score: float
    null_score: float


def best_span(logits: Tensor, allowed: Tensor, *, max_tokens: int = 30) -> Span:
    """Find the span whose two logits have the largest sum, among all that begin before they end.

    All spans are looked at, where common scripts combine the twenty likeliest starts and ends.

    Args:
        logits: Of start and end, shape ``(2, L)``.
        allowed: Tokens of the context, shape ``(L,)``; the first token is never one of a span.
        max_tokens: Longest span.

    Raises:
        ShapeError: if the shapes do not fit.
        ValueError: if ``max_tokens`` is below 1.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
    if logits.ndim != 2 or len(logits) != 2 or allowed.shape != logits.shape[1:]:
        raise ShapeError(
            f"logits must have shape (2, L) and allowed (L,), got {tuple(logits.shape)} and {tuple(allowed.shape)}"
        )
    start, end = logits.float()
    null = float(start[0] + end[0])
    inside = allowed.bool().clone()
    inside[0] = False
    sums = start.unsqueeze(1) + end.unsqueeze(0)
    legal = torch.ones_like(sums, dtype=torch.bool).triu().tril(max_tokens - 1)
    legal &= inside.unsqueeze(1) & inside.unsqueeze(0)
    best = sums.masked_fill(~legal, -torch.inf).flatten().max(0)
    place = int(best.indices)
    return Span(place // len(start), place % len(start), float(best.values), null)


@dataclass(frozen=True)
class Candidate:
    """What one window says of a question.

    Args:
        text: The words of its best span; empty if it has none.
        score: Its score.
        null_score: The score of "no answer".
    """

    text: str
    score: float
    null_score: float


def candidate_of(
    logits: Tensor, allowed: Tensor, first: Tensor, last: Tensor, context: str, *, max_tokens: int = 30
) -> Candidate:
    """Return the words of a window's best span.

    Args:
        logits: Of start and end, shape ``(2, L)``.
        allowed: Where an answer can stand, shape ``(L,)``.
        first: Character of the context where each token begins, shape ``(L,)``.
        last: Where it ends.
        context: The text.
        max_tokens: Longest span in tokens.
    """
    span = best_span(logits, allowed, max_tokens=max_tokens)
    text = "" if span.score == -torch.inf else context[int(first[span.start]) : int(last[span.end])]
    return Candidate(text, span.score, span.null_score)


def answer_of(candidates: list[Candidate], *, null_threshold: float | None = None) -> str:
    """Choose between the windows of one question.

    Args:
        candidates: One a window.
        null_threshold: Answer nothing if the least score of "no answer" is above the best span's by more than this
            (SQuAD 2.0; tune it on held-out questions). ``None`` always answers.
    """
    best = max(candidates, key=lambda candidate: candidate.score)
    nothing = min(candidate.null_score for candidate in candidates)
    return "" if null_threshold is not None and nothing - best.score > null_threshold else best.text
