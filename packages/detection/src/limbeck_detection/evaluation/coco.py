"""COCO's average precision, computed by faster-coco-eval, from files or from what a run predicted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from limbeck_core.errors import DataError
from limbeck_detection.data.coco import read_coco
from limbeck_detection.data.dataset import read_text

_NAMES = {
    "AP": "AP_all",
    "AP50": "AP_50",
    "AP75": "AP_75",
    "AP_small": "AP_small",
    "AP_medium": "AP_medium",
    "AP_large": "AP_large",
    "AR1": "AR_all",
    "AR10": "AR_second",
    "AR100": "AR_third",
}


_RECALLS = 101  # 0, 0.01, ..., 1


def average_precision(ground_truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average precision and recall of boxes, as COCO's server reports them.

    Args:
        ground_truth: Content of a COCO annotation file.
        predictions: Mappings of ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in pixels) and ``score``.

    Returns:
        In per cent: ``AP`` (IoU 0.50 to 0.95), ``AP50``, ``AP75``, ``AP_small`` (below 32^2 pixels), ``AP_medium``,
        ``AP_large`` (from 96^2), ``AR1``, ``AR10`` and ``AR100`` (recall with so many detections an image); ``None``
        where there is nothing to find. ``per_class`` maps names to AP.

    Raises:
        DataError: if a prediction lacks a part, or names an image or a category that the ground truth lacks.
    """
    return numbers_and_curves(ground_truth, predictions)[0]


def numbers_and_curves(
    ground_truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Judge once: what :func:`average_precision` returns, and precision over recall of each class.

    Args:
        ground_truth: As for :func:`average_precision`.
        predictions: As for :func:`average_precision`.

    Returns:
        The numbers, and by class name the precision in [0, 1] at the recalls 0, 0.01, ..., 1 and an IoU of 0.5, made
        monotone as COCO does; classes without an object are left out, and without any prediction all of it is 0.

    Raises:
        DataError: as :func:`average_precision`.
    """
    _check(ground_truth, predictions)
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    if not predictions:
        result = _nothing_predicted(COCO(_complete(ground_truth)), ground_truth)
        return result, {name: [0.0] * _RECALLS for name, value in result["per_class"].items() if value is not None}
    truth = COCO(_complete(ground_truth))
    judge = COCOeval_faster(truth, truth.loadRes([dict(row) for row in predictions]), iouType="bbox")
    judge.run()
    stats = judge.stats_as_dict
    result = {name: _percent(stats[theirs]) for name, theirs in _NAMES.items()}
    # thresholds (the first: 0.5), recalls, categories, areas (the first: all), numbers of detections (the last: 100)
    precision = np.asarray(judge.eval["precision"])[:, :, :, 0, -1]
    per_class = {names[category]: precision[:, :, k] for k, category in enumerate(judge.params.catIds)}
    result["per_class"] = {
        name: _percent(float(p[p > -1].mean()) if (p > -1).any() else -1) for name, p in per_class.items()
    }
    return result, {name: p[0].tolist() for name, p in per_class.items() if (p[0] > -1).any()}


def _percent(value: float) -> float | None:
    return None if value < 0 else 100.0 * float(value)


def _nothing_predicted(truth: Any, ground_truth: Mapping[str, Any]) -> dict[str, Any]:
    """The library refuses an empty list; finding nothing is 0 wherever there was something to find."""
    marks = [mark for mark in truth.dataset["annotations"] if not mark["iscrowd"]]
    ranges = {"AP_small": (0, 32**2), "AP_medium": (32**2, 96**2), "AP_large": (96**2, 1e10)}
    result: dict[str, Any] = {}
    for name in _NAMES:
        low, high = ranges.get(name, (0, 1e10))
        result[name] = 0.0 if any(low <= mark["area"] <= high for mark in marks) else None
    marked = {mark["category_id"] for mark in marks}
    categories = ground_truth["categories"]
    result["per_class"] = {c["name"]: 0.0 if c["id"] in marked else None for c in categories}
    return result


def _complete(ground_truth: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which every annotation has id, area and iscrowd; ids count from 1, since 0 stands for no match."""
    marks = []
    for number, mark in enumerate(ground_truth["annotations"], start=1):
        area = mark.get("area")
        size = float(mark["bbox"][2]) * float(mark["bbox"][3]) if area is None else float(area)
        marks.append({**mark, "id": number, "area": size, "iscrowd": int(mark.get("iscrowd", 0))})
    return {**ground_truth, "annotations": marks}


def _check(ground_truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> None:
    images = {image["id"] for image in ground_truth["images"]}
    categories = {category["id"] for category in ground_truth["categories"]}
    for number, prediction in enumerate(predictions):
        missing = [name for name in ("image_id", "category_id", "bbox", "score") if name not in prediction]
        if missing:
            raise DataError(
                f"prediction {number} lacks {', '.join(missing)}: it needs image_id, category_id, bbox, score"
            )
        if len(prediction["bbox"]) != 4:
            raise DataError(f"bbox of prediction {number} must be [x, y, width, height], got {prediction['bbox']}")
        if prediction["image_id"] not in images:
            raise DataError(
                f"prediction {number} is of image {prediction['image_id']}, which the annotations lack: are the "
                "predictions of this data set?"
            )
        if prediction["category_id"] not in categories:
            raise DataError(
                f"prediction {number} is of category {prediction['category_id']}, which the annotations lack (they "
                f"have {sorted(categories)[:12]}): write category ids of the file, not labels counted from 0"
            )


def evaluate(predictions: str | Path, annotations: str | Path) -> dict[str, Any]:
    """Judge a file of predictions.

    Args:
        predictions: JSON list in COCO's result format.
        annotations: COCO annotation file.

    Returns: As :func:`average_precision`, with ``images`` and ``detections``, their numbers.

    Raises:
        DataError: if a file cannot be read or the two do not fit together.
    """
    return evaluate_with_curves(predictions, annotations)[0]


def evaluate_with_curves(
    predictions: str | Path, annotations: str | Path
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return what :func:`evaluate` does, and the curves of :func:`numbers_and_curves`; raises as :func:`evaluate`."""
    truth, found = _read(predictions, annotations)
    numbers, curves = numbers_and_curves(truth, found)
    return {**numbers, "images": len(truth["images"]), "detections": len(found)}, curves


def _read(predictions: str | Path, annotations: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    truth = read_coco(Path(annotations))
    try:
        found = json.loads(read_text(Path(predictions)))
    except json.JSONDecodeError as error:
        raise DataError(f"{predictions} is no JSON ({error})") from error
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DataError(
            f"{predictions} must be a list of mappings with image_id, category_id, bbox and score, got "
            f"{type(found).__name__}"
        )
    return truth, found


def table(result: Mapping[str, Any]) -> str:
    """Lay the numbers out in two columns, the classes below."""
    rows = [(name, result[name]) for name in _NAMES]
    rows += [(f"AP of {name}", value) for name, value in result["per_class"].items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {'-' if value is None else f'{value:.1f}':>6}" for name, value in rows)
