"""The evaluator of a run of a language model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torch.nn.functional import log_softmax

from limbeck_core.errors import DataError, ShapeError
from limbeck_nlp.data.dataset import IGNORED


class TokenMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Likelihood, accuracy and calibration of each predicted token, in MMEngine's evaluator.

    Keys: ``nll`` in nats a token, ``perplexity``, its exponential, ``accuracy`` and ``ece`` (ten bins of confidence) in
    per cent. Only positions whose target is not -100 count, over the whole data set and not batch by batch.
    ``per_sample`` holds the mean nll of each sequence of the last evaluation.

    Args:
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange sums.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""
    bins = 10

    def __init__(self, *, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.per_sample: dict[str, list[float]] = {}

    def process(self, data_batch: Mapping[str, Any], data_samples: Tensor | Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch with its ``targets``, shape ``(N, L)``, already shifted.
            data_samples: Logits ``(N, L, V)``, or N of ``(L, V)``.

        Raises:
            DataError: if the batch has no targets.
            ShapeError: if the shapes do not fit.
        """
        if "targets" not in data_batch:
            raise DataError(f"evaluation needs 'targets' in the batch, it has {', '.join(data_batch)}")
        logits = data_samples if isinstance(data_samples, Tensor) else torch.stack(list(data_samples))
        targets = torch.as_tensor(data_batch["targets"]).to(logits.device)
        if logits.ndim != 3 or logits.shape[:2] != targets.shape:
            raise ShapeError(f"predictions must be logits of shape {(*targets.shape, 'V')}, got {tuple(logits.shape)}")
        for row, wanted in zip(logits, targets, strict=True):
            kept = wanted != IGNORED
            likely = log_softmax(row[kept].float(), dim=-1)
            confidence, guess = likely.exp().max(-1) if len(likely) else (likely.sum(-1), likely.sum(-1))
            right = (guess == wanted[kept]).double()
            nll = -likely.gather(1, wanted[kept, None]).double().sum().item()
            bins = (confidence * self.bins).long().clamp(max=self.bins - 1)
            gaps = [
                torch.zeros(self.bins, dtype=torch.float64).index_add_(0, bins.cpu(), part.double().cpu()).tolist()
                for part in (confidence, right)
            ]
            self.results.append((int(kept.sum()), nll, right.sum().item(), gaps[0], gaps[1]))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the measures over all tokens."""
        count = max(sum(entry[0] for entry in results), 1)
        nll = sum(entry[1] for entry in results) / count
        self.per_sample = {"nll": [entry[1] / max(entry[0], 1) for entry in results]}
        sums = torch.tensor([[entry[3], entry[4]] for entry in results], dtype=torch.float64).sum(0)
        return {
            "nll": nll,
            "perplexity": math.exp(min(nll, 700.0)),
            "accuracy": 100.0 * sum(entry[2] for entry in results) / count,
            "ece": 100.0 * float((sums[0] - sums[1]).abs().sum()) / count,
        }
