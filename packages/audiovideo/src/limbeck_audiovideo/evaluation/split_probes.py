"""Probes of a frozen model inside a run: one part of the evaluation data trains them, the other is asked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from sklearn.metrics import balanced_accuracy_score, f1_score
from torch import Tensor

from limbeck_core.errors import DataError, ShapeError
from limbeck_core.probes import linear_probe, nearest_neighbours


class SplitProbes(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Nearest neighbours and a linear probe on what the student says of each sample, in per cent.

    Batches carry ``split``, texts, and ``targets``: class indices, or a mapping from task to class indices. Keys, with
    the task before them where there are several: ``knn``, ``linear`` (accuracy), ``knn_balanced``, ``knn_f1``,
    ``linear_balanced``, ``linear_f1`` (macro). ``per_sample`` holds whether each test sample was right, by which
    ``limbeck compare`` resamples.

    Args:
        train: The ``split`` of samples that train the probes.
        test: The ``split`` of samples that are judged.
        neighbours: As :func:`~limbeck_audiovideo.evaluation.nearest_neighbours`.
        temperature: As there.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange embeddings.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(
        self,
        *,
        train: str = "TRAIN",
        test: str = "TEST",
        neighbours: int = 20,
        temperature: float = 0.07,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.train, self.test = train, test
        self.neighbours, self.temperature = neighbours, temperature
        self.per_sample: dict[str, list[float]] = {}

    def process(self, data_batch: Mapping[str, Any], data_samples: Tensor | Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch, with ``targets`` and ``split``.
            data_samples: What the model predicted: embeddings ``(N, D)``.

        Raises:
            DataError: if the batch has no targets or does not say which part its samples are of.
            ShapeError: if the embeddings are no vectors.
        """
        for field in ("targets", "split"):
            if field not in data_batch:
                raise DataError(f"probes need {field!r} in the batch, it has {', '.join(data_batch)}")
        embeddings = data_samples if isinstance(data_samples, Tensor) else torch.stack(list(data_samples))
        if embeddings.ndim != 2:
            raise ShapeError(f"probes take embeddings (N, D), got {tuple(embeddings.shape)}: pool over time and space")
        targets = data_batch["targets"]
        tasks = targets if isinstance(targets, Mapping) else {"": targets}
        for number, split in enumerate(data_batch["split"]):
            classes = {task: int(values[number]) for task, values in tasks.items()}
            self.results.append((split, classes, embeddings[number].detach().float().cpu()))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Train the probes and ask them.

        Raises:
            DataError: if either part is empty.
        """
        parts = {name: [row for row in results if row[0] == name] for name in (self.train, self.test)}
        for name, rows in parts.items():
            if not rows:
                found = ", ".join(sorted({row[0] for row in results}))
                raise DataError(f"no sample of the evaluation data is of the part {name!r}; there are: {found}")
        train, test = (torch.stack([row[2] for row in parts[name]]) for name in (self.train, self.test))
        figures: dict[str, float] = {}
        self.per_sample = {}
        for task in parts[self.train][0][1]:
            known, truth = (torch.tensor([row[1][task] for row in parts[name]]) for name in (self.train, self.test))
            classes = int(max(known.max(), truth.max())) + 1
            votes = nearest_neighbours(
                train, known, test, neighbours=self.neighbours, temperature=self.temperature, classes=classes
            )
            probed = linear_probe(train, known, test, classes=classes).probabilities
            for name, scores in (("knn", votes), ("linear", probed)):
                key = f"{task}/{name}" if task else name
                answer = scores.argmax(1)
                self.per_sample[key] = (100.0 * (answer == truth)).tolist()
                figures |= _figures(key, answer, truth)
        return figures


def _figures(key: str, answer: Tensor, truth: Tensor) -> dict[str, float]:
    found, true = answer.numpy(), truth.numpy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
        balanced = balanced_accuracy_score(true, found)
    return {
        key: 100.0 * float((answer == truth).double().mean()),
        f"{key}_balanced": 100.0 * float(balanced),
        f"{key}_f1": 100.0 * float(f1_score(true, found, average="macro", zero_division=0)),
    }
