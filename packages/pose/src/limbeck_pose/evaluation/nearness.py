"""PCK and NME of people that anyone found: each true person is paired with the found one most like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limbeck_core.checks import check_positive
from limbeck_pose.data.people import keypoints_of
from limbeck_pose.evaluation.coco import HANDS, WHOLE, mean_of_hands, points_of_results
from limbeck_pose.evaluation.similarity import Array, correct_keypoints, mean_error
from limbeck_pose.keypoints import WHOLE_BODY, Layout


def nearness(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    layout: Layout = WHOLE_BODY,
    *,
    threshold: float = 0.05,
) -> dict[str, float | None]:
    """Share of correct key points (PCK) and mean error (NME), of each part and of the whole body, in per cent.

    Within an image true and found people are paired, the most similar pair first (object key point similarity over all
    labelled points), each person once. Sizes are the larger sides of the true boxes. Crowds and people without a
    labelled point do not count; found people that are left over do not either, that is what precision is for.

    Args:
        annotations: Content of an annotation file in the layout of COCO-WholeBody or COCO.
        results: People, as in :func:`~limbeck_pose.evaluation.coco.average_precision`.
        layout: Which key points these are.
        threshold: Largest distance of a correct point, as a fraction of the size.

    Returns:
        ``"<part>/PCK"``, where points of people that nobody found are wrong; ``"<part>/NME"`` of those that were found,
        as per cent of the size; ``"found"``, the share of true people that have a partner. ``None`` where nothing is
        labelled, or found.

    Raises:
        ValueError: if ``threshold`` is not above 0.
        DataError: as :func:`~limbeck_pose.evaluation.coco.average_precision`.
    """
    check_positive(threshold, "threshold")
    found: dict[Any, list[Array]] = {}
    for result, points in zip(results, points_of_results(annotations, results, layout), strict=True):
        found.setdefault(result["image_id"], []).append(points)
    truth: dict[Any, list[tuple[Array, Array, float]]] = {}
    for annotation in annotations["annotations"]:
        if annotation.get("iscrowd", 0):
            continue
        points, visible = keypoints_of(annotation, layout)
        size = float(max(annotation["bbox"][2:]))
        if visible.any() and size > 0:
            truth.setdefault(annotation["image_id"], []).append((points, visible, size))
    rows = [row for image, people in truth.items() for row in _paired(people, found.get(image, []), layout)]
    figures: dict[str, float | None] = {"found": None}
    parts: dict[str, range] = {**layout.parts, **({WHOLE: range(layout.count)} if len(layout.parts) > 1 else {})}
    if not rows:
        return figures | {f"{part}/{name}": None for part in parts for name in ("PCK", "NME")}
    predicted, true, visible, sizes = (np.stack(column) for column in zip(*rows, strict=True))
    has_partner = np.isfinite(predicted).all((1, 2))
    figures["found"] = 100.0 * float(has_partner.mean())
    for part, points in parts.items():
        chosen = slice(points.start, points.stop)
        columns = predicted[:, chosen], true[:, chosen], visible[:, chosen], sizes
        everywhere = np.where(np.isfinite(columns[0]), columns[0], np.inf)  # never within a threshold
        share, _ = correct_keypoints(everywhere, *columns[1:], threshold=threshold)
        error = mean_error(*(column[has_partner] for column in columns))["all"]
        figures[f"{part}/PCK"] = None if np.isnan(share) else 100.0 * share
        figures[f"{part}/NME"] = None if np.isnan(error) else 100.0 * error
    if parts.keys() >= HANDS:
        figures |= mean_of_hands(figures, ("PCK", "NME"))
    return figures


def _paired(
    people: Sequence[tuple[Array, Array, float]], found: Sequence[Array], layout: Layout
) -> list[tuple[Array, Array, Array, float]]:
    """True people with the found points that go with them, NaN where none do."""
    partners = [np.full((layout.count, 2), np.nan) for _ in people]
    if found:
        candidates = np.stack(found)
        likeness = np.stack([_likeness(candidates, *person, layout) for person in people])
        for index in np.argsort(-likeness, axis=None, kind="stable"):
            row, column = np.unravel_index(index, likeness.shape)
            if np.isfinite(likeness[row, column]):
                partners[row] = candidates[column]
                likeness[row], likeness[:, column] = np.nan, np.nan
    return [(partner, *person) for partner, person in zip(partners, people, strict=True)]


def _likeness(candidates: Array, points: Array, visible: Array, size: float, layout: Layout) -> Array:
    """Similarity; where it is 0 to the last digit, minus the mean squared distance, so that the nearest still wins."""
    chosen = visible > 0
    squares = ((candidates[:, chosen] - points[chosen]) ** 2).sum(-1)
    tolerance = 2 * (2 * np.asarray(layout.sigmas)[chosen]) ** 2 * size**2
    similarity: Array = np.exp(-squares / tolerance).mean(1)
    return np.where(similarity > 0, similarity, -squares.mean(1))
