"""Evaluators of audio runs: classes of clips, and events in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from limbeck_audiovideo.audio.datasets import TOKEN_SECONDS
from limbeck_audiovideo.audio.front_end import RATE
from limbeck_audiovideo.audio.tables import Event
from limbeck_audiovideo.evaluation.classification import classify, tag
from limbeck_audiovideo.evaluation.events import event_f1, events_of, psds, segment_f1
from limbeck_core.errors import DataError


class ClipMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Measures of :func:`classify` where targets are class indices, of :func:`tag` where they are zeros and ones.

    ``per_sample["accuracy"]`` holds 100 or 0 for each clip with one label, by which ``limbeck compare`` resamples.

    Args:
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(self, *, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.per_sample: dict[str, list[float]] = {}

    def process(self, data_batch: Mapping[str, Any], data_samples: Tensor | Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch with its ``targets``.
            data_samples: Class scores, ``(N, C)`` or N rows.

        Raises:
            DataError: if the batch has no targets.
        """
        if "targets" not in data_batch:
            raise DataError(f"evaluation needs 'targets' in the batch, it has {', '.join(data_batch)}")
        scores = (row.detach().float().cpu() for row in data_samples)
        rows = zip(scores, data_batch["targets"].cpu(), strict=True)
        self.results.extend(rows)

    def compute_metrics(self, results: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Return the measures of all clips."""
        scores, targets = (torch.stack(column) for column in zip(*results, strict=True))
        if targets.ndim == 2:
            return tag(scores, targets)
        self.per_sample = {"accuracy": [100.0 * float(hit) for hit in scores.argmax(1) == targets]}
        return classify(scores, targets)


class EventMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Segment and event F1 of a model that scores tokens, in per cent, and PSDS if asked.

    The truth is what the data set's tokens say is active, so onsets are those of tokens of 40 ms;
    ``tools/eval_audiovideo.py events`` judges against the table itself.

    Args:
        classes: Names of the classes; their numbers by default.
        threshold: See :func:`events_of`.
        median: See :func:`events_of`.
        thresholds: Operating points of PSDS, which needs the extra ``sed``; 0 leaves it out.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        *,
        threshold: float = 0.5,
        median: int = 7,
        thresholds: int = 0,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.classes = list(classes) if classes is not None else None
        self.threshold, self.median, self.thresholds = threshold, median, thresholds

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch of :class:`~limbeck_audiovideo.audio.SoundEvents`.
            data_samples: Logits of tokens ``(N, tokens, C)``, and whatever follows.

        Raises:
            DataError: if the batch has no recordings with strong labels.
        """
        if "recording" not in data_batch or not bool(data_batch["targets"]["strong_known"].all()):
            raise DataError("events are judged on recordings with strong labels: give the data set strong=...")
        probabilities = data_samples[0].detach().float().sigmoid().cpu().numpy()
        strong = data_batch["targets"]["strong"].cpu().numpy()
        seconds = data_batch["inputs"]["length"].cpu().double() / RATE
        for row in zip(data_batch["recording"], probabilities, strong, seconds.tolist(), strict=True):
            self.results.append(row)

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the measures over all recordings."""
        classes = self.classes or [str(number) for number in range(results[0][1].shape[1])]
        found: dict[str, list[Event]] = {}
        truth: dict[str, list[Event]] = {}
        scores, durations = {}, {}
        for name, probabilities, strong, seconds in results:
            found[name] = events_of(probabilities, classes, threshold=self.threshold, median=self.median)
            truth[name] = events_of(strong, classes, median=1)
            scores[name], durations[name] = probabilities, max(seconds, len(strong) * TOKEN_SECONDS)
        measures = {
            **segment_f1(found, truth, durations, classes),
            **event_f1(found, truth, durations, classes),
        }
        if self.thresholds:
            measures |= psds(scores, truth, durations, classes, thresholds=self.thresholds, median=self.median)
        return measures
