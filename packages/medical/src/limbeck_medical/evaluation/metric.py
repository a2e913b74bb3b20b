"""The evaluator of a run: measures each case as it comes and gives the means at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from limbeck_core.errors import DataError, ShapeError
from limbeck_medical.evaluation.measures import MEASURES, CaseScores, MissingDistance, measure_case
from limbeck_medical.evaluation.summary import over_structures


class SegmentationMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """Dice, HD95, average surface distance and volume error, in MMEngine's evaluator.

    Measured on the grid of the batch, that is after resampling; ``tools/eval_medical.py`` measures on the grid of the
    files. Keys: ``dice``, ``hd95``, ``asd``, ``volume_error``: means over cases of the mean over structures; and
    ``dice_<structure>``. ``per_sample`` holds the Dice of each case, by which ``limbeck compare`` resamples. What is
    absent is treated as :func:`~limbeck_medical.evaluation.measure_case` says.

    Args:
        classes: Names by label, the background first; or only their number.
        distances: Whether HD95 and surface distance are measured.
        missing_distance: ``"exclude"`` or ``"diagonal"``, see :func:`~limbeck_medical.evaluation.measure_case`.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange what they measured.
        prefix: Put before each key with a slash.

    Raises:
        ValueError: if there are fewer than two classes.
    """

    default_prefix = ""

    def __init__(
        self,
        classes: Sequence[str] | int,
        *,
        distances: bool = True,
        missing_distance: MissingDistance = "exclude",
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.classes = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
        if len(self.classes) < 2:
            raise ValueError(f"segmentation needs two classes or more, the background among them, got {self.classes}")
        self.distances = distances
        self.missing_distance: MissingDistance = missing_distance
        self.per_sample: dict[str, list[float]] = {}

    def process(self, data_batch: Mapping[str, Any], data_samples: Tensor | Sequence[Tensor]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch with its ``targets`` ``(N, 1, ...)``, and ``spacing`` ``(N, axes)`` if distances are
                to be in millimetres.
            data_samples: What the model predicted: class scores ``(N, K, ...)``.

        Raises:
            DataError: if the batch has no targets.
            ShapeError: if scores and targets do not fit, or the scores are not of as many classes.
        """
        if "targets" not in data_batch:
            raise DataError(f"evaluation needs 'targets' in the batch, it has {', '.join(data_batch)}")
        scores = data_samples if isinstance(data_samples, Tensor) else torch.stack(list(data_samples))
        targets = torch.as_tensor(data_batch["targets"])
        if (
            scores.ndim < 4
            or scores.shape[1] != len(self.classes)
            or targets.shape != (len(scores), 1, *scores.shape[2:])
        ):
            raise ShapeError(
                f"scores must be (N, {len(self.classes)}, ...) and targets (N, 1, ...) on the same grid, got "
                f"{tuple(scores.shape)} and {tuple(targets.shape)}: name as many classes as the model scores"
            )
        spacing = data_batch.get("spacing")
        for number, (labels, truth) in enumerate(zip(scores.argmax(1), targets[:, 0], strict=True)):
            measured = measure_case(
                labels,
                truth,
                len(self.classes),
                spacing=None if spacing is None else [float(step) for step in spacing[number]],
                distances=self.distances,
                missing_distance=self.missing_distance,
            )
            self.results.append(measured)

    def compute_metrics(self, results: list[CaseScores]) -> dict[str, float]:
        """Return the means over all cases; a measure that no case has is left out."""
        dice = over_structures(results, "dice")
        self.per_sample = {"dice": [float(value) for value in dice]} if not np.isnan(dice).any() else {}
        found = {name: over_structures(results, name) for name in MEASURES}
        for index, name in enumerate(self.classes[1:]):
            found[f"dice_{name}"] = np.asarray([case.dice[index] for case in results])
        return {name: float(np.nanmean(v)) for name, v in found.items() if len(v) and not np.isnan(v).all()}
