"""A linear probe that is always asked about people it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from sklearn.metrics import f1_score
from torch import Tensor

from limbeck_core.errors import DataError, ShapeError
from limbeck_core.probes import STRENGTHS, linear_probe


def leave_subjects_out(
    embeddings: Tensor, targets: Tensor, subjects: Tensor, *, strengths: Sequence[float] = STRENGTHS
) -> Tensor:
    """Return the class that a linear probe finds for each sample, trained on the samples of all other subjects.

    Args:
        embeddings: Frozen features, ``(N, D)``.
        targets: Class indices, ``(N,)``.
        subjects: Index of the subject of each sample, ``(N,)``.
        strengths: See :func:`~limbeck_core.probes.linear_probe`.

    Returns:
        Class indices, ``(N,)``.

    Raises:
        ShapeError: if the lengths differ, or there is one subject alone.
        TargetError: as :func:`~limbeck_core.probes.linear_probe`.
    """
    if not len(embeddings) == len(targets) == len(subjects):
        raise ShapeError(
            "embeddings, targets and subjects must hold one entry a sample, got "
            f"{len(embeddings)}, {len(targets)} and {len(subjects)}"
        )
    people = torch.unique(subjects)
    if len(people) < 2:
        raise ShapeError(f"leaving subjects out needs two or more of them, got {people.tolist()}")
    classes = int(targets.max()) + 1
    found = torch.empty_like(targets)
    for person in people:
        out = subjects == person
        probed = linear_probe(embeddings[~out], targets[~out], embeddings[out], classes=classes, strengths=strengths)
        found[out] = probed.probabilities.argmax(1).to(found)
    return found


def macro_f1(found: Tensor, targets: Tensor) -> float:
    """Mean over classes of F1, in per cent; a class that is never found counts 0."""
    score = f1_score(targets.cpu().numpy(), found.cpu().numpy(), average="macro", zero_division=0)
    return 100.0 * float(score)


class SubjectProbe(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Accuracy and macro F1 of :func:`leave_subjects_out` on what the student says of the evaluation data, per cent.

    Batches carry ``targets`` and ``subjects``; clips without a label or subject (-1) are left out. ``per_sample`` holds
    100 or 0 for each clip of the last evaluation, by which ``limbeck compare`` resamples.

    Args:
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange embeddings.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(self, *, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.per_sample: dict[str, list[float]] = {}

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Tensor]) -> None:
        """Take one batch of embeddings.

        Raises:
            DataError: if the batch has no targets or subjects.
        """
        for name in ("targets", "subjects"):
            if name not in data_batch:
                raise DataError(f"SubjectProbe needs {name!r} of the batch, it has {', '.join(data_batch)}")
        self.results += [
            (embedding.detach().float().cpu(), int(target), int(subject))
            for embedding, target, subject in zip(
                data_samples, data_batch["targets"], data_batch["subjects"], strict=True
            )
        ]

    def compute_metrics(self, results: list[tuple[Tensor, int, int]]) -> dict[str, float]:
        """Train and ask the probes."""
        labelled = [row for row in results if row[1] >= 0 and row[2] >= 0]
        if not labelled:
            raise DataError(f"none of {len(results)} clips has a label and a subject: add them to the table")
        targets, subjects = (torch.tensor([row[i] for row in labelled]) for i in (1, 2))
        found = leave_subjects_out(torch.stack([row[0] for row in labelled]), targets, subjects)
        self.per_sample = {"accuracy": (100.0 * (found == targets)).tolist()}
        return {"accuracy": 100.0 * float((found == targets).double().mean()), "macro_f1": macro_f1(found, targets)}


__all__ = ["SubjectProbe", "leave_subjects_out", "macro_f1"]
