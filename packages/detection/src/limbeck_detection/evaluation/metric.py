"""The evaluator of a run: collects detections over the test set and gives COCO's numbers at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from torch import Tensor

from limbeck_core.errors import DataError
from limbeck_detection.evaluation.coco import average_precision


class CocoMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """COCO's average precision in MMEngine's evaluator, for any data set of this package (``truth=True``).

    Keys: ``AP``, ``AP50``, ``AP75``, ``AP_small``, ``AP_medium``, ``AP_large``, ``AR1``, ``AR10``, ``AR100``, in per
    cent; those that have nothing to find are left out. Greater is better.

    Args:
        classes: Names of the classes, by label, for the numbers of each class and the file. Default: their labels.
        category_ids: Number of each label in the file of predictions. Default: the labels.
        predictions: JSON file to write the detections to, in COCO's result format; ``None`` writes none.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.
    """

    default_prefix = ""

    def __init__(
        self,
        *,
        classes: Sequence[str] | None = None,
        category_ids: Sequence[int] | None = None,
        predictions: str | Path | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.classes = None if classes is None else tuple(classes)
        self.category_ids = None if category_ids is None else tuple(category_ids)
        self.predictions = None if predictions is None else Path(predictions)

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Tensor]]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch with its ``truth``, ``ids`` and ``sizes``.
            data_samples: ``labels``, ``boxes`` (x1, y1, x2, y2 in pixels) and ``scores`` of each image.

        Raises:
            DataError: if the batch has no truth, or another number of images than there are predictions.
        """
        self.results.extend(image_rows(data_batch, data_samples))

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return the numbers of all images, and write the file if one was asked for."""
        truth, found = as_coco(results, self.classes)
        if self.predictions is not None and is_main_process():
            numbers = self.category_ids
            rows = [
                {**row, "category_id": numbers[row["category_id"]] if numbers else row["category_id"]} for row in found
            ]
            self.predictions.parent.mkdir(parents=True, exist_ok=True)
            self.predictions.write_text(json.dumps(rows), encoding="utf-8")
        measured = average_precision(truth, found)
        return {name: value for name, value in measured.items() if isinstance(value, float)}


def image_rows(batch: Mapping[str, Any], detections: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Any]]:
    """Truth and detections of each image of a batch as plain data, which other ranks can be sent.

    Raises:
        DataError: if the batch has no truth, or another number of images than there are predictions.
    """
    if "truth" not in batch:
        raise DataError(
            f"evaluation needs 'truth' in the batch, it has {', '.join(batch)}: give the data set truth=True"
        )
    if len(batch["truth"]) != len(detections):
        raise DataError(f"{len(batch['truth'])} images were evaluated, but {len(detections)} predictions came")
    rows = []
    for truth, identity, size, found in zip(batch["truth"], batch["ids"], batch["sizes"], detections, strict=True):
        row: dict[str, Any] = {"id": int(identity), "size": size.tolist()}
        row["truth"] = {name: value.cpu().tolist() for name, value in truth.items()}
        row["found"] = {name: value.detach().float().cpu().tolist() for name, value in found.items()}
        rows.append(row)
    return rows


def as_coco(
    rows: Sequence[Mapping[str, Any]], classes: Sequence[str] | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Content of a COCO annotation file and of a file of results, with labels as category ids.

    Args:
        rows: What :func:`image_rows` gave.
        classes: Names by label.
    """
    images, marks, found = [], [], []
    labels: set[int] = set(range(len(classes or ())))
    for row in rows:
        width, height = row["size"]
        images.append({"id": row["id"], "width": width, "height": height, "file_name": str(row["id"])})
        truth, seen = row["truth"], row["found"]
        for box, label, area, crowd in zip(*(truth[n] for n in ("boxes", "labels", "area", "crowd")), strict=True):
            mark = {"image_id": row["id"], "category_id": label, "bbox": _xywh(box), "area": area}
            marks.append({**mark, "iscrowd": int(crowd)})
        for box, label, score in zip(*(seen[name] for name in ("boxes", "labels", "scores")), strict=True):
            found.append({"image_id": row["id"], "category_id": int(label), "bbox": _xywh(box), "score": score})
        labels.update(truth["labels"], (int(label) for label in seen["labels"]))
    names = dict(enumerate(classes or ()))
    categories = [{"id": label, "name": names.get(label, str(label))} for label in sorted(labels)]
    return {"images": images, "annotations": marks, "categories": categories}, found


def _xywh(box: Sequence[float]) -> list[float]:
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]
