"""COCO-WholeBody's average precision, part by part, computed by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from limbeck_core.errors import DataError
from limbeck_pose.data.people import keypoints_of
from limbeck_pose.keypoints import WHOLE_BODY, Layout

WHOLE = "whole"
HANDS = {"left_hand", "right_hand"}
_NAMES = {"AP": "AP_all", "AP50": "AP_50", "AP75": "AP_75", "AR": "AR_all"}


def average_precision(
    annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]], layout: Layout = WHOLE_BODY
) -> dict[str, float | None]:
    """Average precision and recall of key points, of each part and of the whole body.

    A person without a labelled point of a part does not count for that part; one score serves all parts; 20 people an
    image, similarities from 0.50 to 0.95.

    Args:
        annotations: Content of an annotation file in the layout of COCO-WholeBody or COCO.
        results: People, each with ``image_id``, ``keypoints`` (K triples x, y, score in pixels of the image, or in
            COCO-WholeBody's five lists) and ``score``.
        layout: Which key points these are.

    Returns:
        In per cent, ``"whole/AP"``, ``"whole/AP50"``, ``"whole/AP75"``, ``"whole/AR"`` and the same of each part;
        ``None`` where nothing is labelled. ``"hand/AP"`` and the like are the means of both hands, as result tables
        give them: the official evaluator prints left and right alone.

    Raises:
        DataError: if a result lacks a part, has another number of key points, or is of an image that the annotations
            lack.
    """
    truth = [(annotation, *_truth(annotation, layout)) for annotation in annotations["annotations"]]
    people = list(zip(results, points_of_results(annotations, results, layout), strict=True))
    figures: dict[str, float | None] = {}
    parts: dict[str, range] = {**layout.parts, **({WHOLE: range(layout.count)} if len(layout.parts) > 1 else {})}
    for part, points in parts.items():
        figures |= {
            f"{part}/{name}": value for name, value in _judge(annotations, truth, people, points, layout).items()
        }
    if parts.keys() >= HANDS:
        figures |= mean_of_hands(figures, tuple(_NAMES))
    return figures


def mean_of_hands(figures: Mapping[str, float | None], names: Sequence[str]) -> dict[str, float | None]:
    """Return ``"hand/<name>"``, the means of the left and the right hand where they are known."""
    means: dict[str, float | None] = {}
    for name in names:
        known = [value for hand in sorted(HANDS) if (value := figures[f"{hand}/{name}"]) is not None]
        means[f"hand/{name}"] = sum(known) / len(known) if known else None
    return means


def _truth(annotation: Mapping[str, Any], layout: Layout) -> tuple[Any, Any]:
    if annotation.get("iscrowd", 0) and "keypoints" not in annotation:
        return np.zeros((layout.count, 2)), np.zeros(layout.count)
    return keypoints_of(annotation, layout)


def points_of_results(
    annotations: Mapping[str, Any], results: Sequence[Mapping[str, Any]], layout: Layout = WHOLE_BODY
) -> list[Any]:
    """Return the key points ``(K, 2)`` of each result, whose images the annotations must have.

    Raises:
        DataError: as :func:`average_precision`.
    """
    images = {image["id"] for image in annotations["images"]}
    return [_points(result, number, images, layout) for number, result in enumerate(results)]


def _points(result: Mapping[str, Any], number: int, images: set[Any], layout: Layout) -> Any:
    missing = [name for name in ("image_id", "keypoints", "score") if name not in result]
    if missing:
        raise DataError(f"result {number} lacks {', '.join(missing)}: it needs image_id, keypoints, score")
    if result["image_id"] not in images:
        raise DataError(
            f"result {number} is of image {result['image_id']}, which the annotations lack: are the results of this "
            "data set?"
        )
    points, _ = keypoints_of({**result, "id": f"of result {number}"}, layout)
    return points


def _judge(
    annotations: Mapping[str, Any], truth: Sequence[Any], people: Sequence[Any], part: range, layout: Layout
) -> dict[str, float | None]:
    chosen = slice(part.start, part.stop)
    marks = []
    for number, (annotation, points, visible) in enumerate(truth, start=1):
        labelled = visible[chosen] > 0
        x, y, width, height = annotation["bbox"]
        marks.append(
            {
                "id": number,
                "image_id": annotation["image_id"],
                "category_id": 1,
                "iscrowd": int(annotation.get("iscrowd", 0)),
                "bbox": [x, y, width, height],
                "area": float(annotation.get("area") or width * height),
                "num_keypoints": int(labelled.sum()),
                "keypoints": np.column_stack([points[chosen], 2.0 * labelled]).ravel().tolist(),
            }
        )
    if not any(mark["num_keypoints"] and not mark["iscrowd"] for mark in marks):
        return dict.fromkeys(_NAMES)
    if not people:
        return dict.fromkeys(_NAMES, 0.0)
    found = [
        {
            "image_id": result["image_id"],
            "category_id": 1,
            "score": float(result["score"]),
            "keypoints": np.column_stack([points[chosen], np.ones(len(part))]).ravel().tolist(),
        }
        for result, points in people
    ]
    base = {"images": list(annotations["images"]), "categories": [{"id": 1, "name": "person"}], "annotations": marks}
    coco = COCO(base)
    judge = COCOeval_faster(coco, coco.loadRes(found), iouType="keypoints", kpt_oks_sigmas=list(layout.sigmas[chosen]))
    judge.params.maxDets = [20]
    judge.run()
    stats = judge.stats_as_dict
    return {name: None if stats[theirs] < 0 else 100.0 * float(stats[theirs]) for name, theirs in _NAMES.items()}


def table(figures: Mapping[str, float | None]) -> str:
    """Return the figures as text, one row a part, one column a measure."""
    parts = list(dict.fromkeys(name.partition("/")[0] for name in figures if "/" in name))
    measures = list(dict.fromkeys(name.partition("/")[2] for name in figures if "/" in name))
    lines = [f"{'part':<12}" + "".join(f"{name:>8}" for name in measures)]
    for part in parts:
        cells = [figures.get(f"{part}/{name}") for name in measures]
        lines.append(f"{part:<12}" + "".join(f"{'-' if cell is None else f'{cell:.1f}':>8}" for cell in cells))
    return "\n".join(lines)
