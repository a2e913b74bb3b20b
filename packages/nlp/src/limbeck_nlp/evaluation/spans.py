"""The evaluator of a run that answers questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from limbeck_core.errors import DataError, ShapeError
from limbeck_nlp.evaluation.qa import PairScores, score_pairs, score_question
from limbeck_nlp.qa.decoding import Candidate, answer_of, candidate_of
from limbeck_nlp.qa.squad import Question

_NEEDED = ("mask", "question", "window")


class SpanMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Exact match and F1 of answers, by pair of languages, in MMEngine's evaluator.

    Keys: ``em`` and ``f1``, means over the pairs of languages (G-XLT), and ``em_same`` and ``f1_same``, over those of
    one language (XLT), where there are any; all in per cent. ``pairs`` holds the scores of each pair of the last
    evaluation, ``predictions`` the answer by (question language, context language, id), ``per_sample`` the scores of
    each question in the same order. Windows of one question are joined.

    Args:
        max_tokens: Longest answer in tokens.
        null_threshold: See :func:`~limbeck_nlp.qa.decoding.answer_of`.
        official_squad: Normalise as SQuAD's script does in every language, as XQuAD is scored.
        picture: File for the matrix of F1; ``None`` draws none.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(
        self,
        *,
        max_tokens: int = 30,
        null_threshold: float | None = None,
        official_squad: bool = False,
        picture: str | Path | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.max_tokens = max_tokens
        self.null_threshold = null_threshold
        self.official_squad = official_squad
        self.picture = picture
        self.pairs: PairScores | None = None
        self.predictions: dict[tuple[str, str, str], str] = {}
        self.per_sample: dict[str, list[float]] = {}

    def process(self, data_batch: Mapping[str, Any], data_samples: Tensor | Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch of a :class:`~limbeck_nlp.qa.data.QuestionWindows`.
            data_samples: Logits of start and end, shape ``(N, 2, L)``, or N of ``(2, L)``.

        Raises:
            DataError: if the batch lacks what the data set gives.
            ShapeError: if the shapes do not fit.
        """
        lacking = [name for name in _NEEDED if name not in data_batch]
        if lacking:
            raise DataError(
                f"evaluation needs {lacking[0]!r} in the batch, it has {', '.join(data_batch)}: use QuestionWindows"
            )
        logits = data_samples if isinstance(data_samples, Tensor) else torch.stack(list(data_samples))
        mask = torch.as_tensor(data_batch["mask"])
        if logits.shape != (len(mask), 2, mask.shape[1]):
            raise ShapeError(
                f"predictions must be logits of shape {(len(mask), 2, mask.shape[1])}, got {tuple(logits.shape)}"
            )
        window = data_batch["window"]
        rows = zip(logits.cpu(), mask.cpu(), window["first"], window["last"], data_batch["question"], strict=True)
        for scores, allowed, first, last, question in rows:
            found = candidate_of(scores, allowed, first, last, question.context, max_tokens=self.max_tokens)
            self.results.append((question, found))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Join the windows of each question and return the scores."""
        windows: dict[tuple[str, str, str], list[Candidate]] = {}
        questions: dict[tuple[str, str, str], Question] = {}
        for question, candidate in results:
            key = (*question.pair, question.identity)
            questions[key] = question
            windows.setdefault(key, []).append(candidate)
        self.predictions = {key: answer_of(found, null_threshold=self.null_threshold) for key, found in windows.items()}
        answered = [(questions[key], text) for key, text in self.predictions.items()]
        each = [score_question(text, question, official_squad=self.official_squad) for question, text in answered]
        self.per_sample = {name: [100.0 * score[place] for score in each] for place, name in enumerate(("em", "f1"))}
        pairs = self.pairs = score_pairs(answered, official_squad=self.official_squad)
        if self.picture is not None:
            pairs.draw(self.picture)
        scores = {"em": pairs.mean("exact_match"), "f1": pairs.mean("f1")}
        if any(asked == told for asked, told in pairs.f1):
            scores["em_same"] = pairs.mean("exact_match", same=True)
            scores["f1_same"] = pairs.mean("f1", same=True)
        return scores
