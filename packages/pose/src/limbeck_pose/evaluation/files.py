"""Judge a file of results against a file of annotations, whoever wrote them."""

from __future__ import annotations

from pathlib import Path

from limbeck_core.errors import DataError
from limbeck_pose.data.people import read_json
from limbeck_pose.evaluation.coco import average_precision
from limbeck_pose.evaluation.nearness import nearness
from limbeck_pose.keypoints import WHOLE_BODY, Layout


def evaluate(
    results: str | Path, annotations: str | Path, layout: Layout = WHOLE_BODY, *, threshold: float = 0.05
) -> dict[str, float | None]:
    """Average precision and recall, PCK and NME; see :func:`average_precision` and :func:`nearness`.

    Args:
        results: JSON list in COCO's or COCO-WholeBody's result format.
        annotations: Annotation file of the same images.
        layout: Which key points these are.
        threshold: Largest distance of a correct point (PCK), as a fraction of the larger side of the person's box.

    Raises:
        ValueError: if ``threshold`` is not above 0.
        DataError: if a file is missing, damaged or does not fit.
    """
    found = read_json(Path(results))
    if not isinstance(found, list):
        raise DataError(f"{results} must hold a list of people, it holds a {type(found).__name__}")
    truth = read_json(Path(annotations))
    return {
        **average_precision(truth, found, layout),
        **nearness(truth, found, layout, threshold=threshold),
    }
