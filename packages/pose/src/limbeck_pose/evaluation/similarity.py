"""How near predicted key points lie to the true ones: object key point similarity, correct key points, mean error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from limbeck_core.errors import ShapeError
from limbeck_pose.keypoints import Layout

Array = npt.NDArray[np.float64]
LEAST_SCORE = 0.2
SAME_PERSON = 0.9


def similarity(predicted: Array, truth: Array, visible: Array, area: float, sigmas: Sequence[float]) -> float:
    r"""Object key point similarity of COCO.

    .. math:: OKS = \frac{\sum_{k: v_k > 0} \exp\!\big(-d_k^2 / (2 (2 \sigma_k)^2 A)\big)}{\#\{k: v_k > 0\}}

    Args:
        predicted: Key points in pixels, ``(K, 2)``.
        truth: Key points in pixels, ``(K, 2)``.
        visible: Above 0 where labelled, ``(K,)``.
        area: Area :math:`A` of the true person in square pixels.
        sigmas: Tolerances, length K.

    Returns:
        0 to 1; NaN where nothing is labelled.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    if predicted.shape != truth.shape or len(visible) != len(truth) or len(sigmas) != len(truth):
        raise ShapeError(
            f"key points must have one shape (K, 2), got {predicted.shape} and {truth.shape}, with {len(visible)} "
            f"visibilities and {len(sigmas)} sigmas"
        )
    chosen = visible > 0
    if not chosen.any():
        return float("nan")
    squares = ((predicted - truth) ** 2).sum(1)
    tolerance = 2 * (2 * np.asarray(sigmas)) ** 2 * (area + np.spacing(1))
    return float(np.exp(-squares / tolerance)[chosen].mean())


def instance_score(box_score: float, scores: Array, *, least: float = LEAST_SCORE) -> float:
    """Confidence of a person: that of the box times the mean of the key points' scores above ``least``.

    Args:
        box_score: Confidence of the box.
        scores: Scores of the key points, ``(K,)``.
        least: Scores at or below this do not count; without any above it the person's score is 0.
    """
    counted = scores[scores > least]
    return box_score * float(counted.mean()) if counted.size else 0.0


def keep_one_of_each(
    points: Array, scores: Array, areas: Array, sigmas: Sequence[float], *, threshold: float = SAME_PERSON
) -> list[int]:
    """Return the people that stay when those too similar to a better one go, best first.

    Args:
        points: Key points of each person, ``(P, K, 2)``.
        scores: Score of each person, ``(P,)``.
        areas: Area of each person's box in square pixels, ``(P,)``.
        sigmas: Tolerances, length K.
        threshold: Similarity above which two are the same person.
    """
    waiting = list(np.argsort(-scores, kind="stable"))
    kept: list[int] = []
    tolerance = 2 * (2 * np.asarray(sigmas)) ** 2
    while waiting:
        best = waiting.pop(0)
        kept.append(int(best))
        if not waiting:
            break
        others = np.array(waiting)
        squares = ((points[others] - points[best]) ** 2).sum(-1)
        scale = ((areas[others] + areas[best]) / 2 + np.spacing(1))[:, None]
        similar = np.exp(-squares / (tolerance * scale)).mean(1)
        waiting = [int(person) for person in others[similar <= threshold]]
    return kept


def correct_keypoints(
    predicted: Array, truth: Array, visible: Array, sizes: Array, *, threshold: float = 0.05
) -> tuple[float, Array]:
    """Share of labelled key points that lie within a fraction of a size from the truth (PCK).

    Args:
        predicted: Key points in pixels, ``(N, K, 2)``.
        truth: Key points in pixels, ``(N, K, 2)``.
        visible: Above 0 where labelled, ``(N, K)``.
        sizes: The larger side of each person's box in pixels, ``(N,)``.
        threshold: Fraction of it.

    Returns:
        The share over all labelled points, 0 to 1, and that of each key point, ``(K,)``; NaN where nothing is labelled.
    """
    near = np.linalg.norm(predicted - truth, axis=-1) <= threshold * sizes[:, None]
    chosen = visible > 0
    count = chosen.sum(0)
    each = np.where(count > 0, (near & chosen).sum(0) / np.maximum(count, 1), np.nan)
    return (float(near[chosen].mean()) if chosen.any() else float("nan")), each


def mean_error(
    predicted: Array, truth: Array, visible: Array, sizes: Array, *, layout: Layout | None = None
) -> dict[str, float]:
    """Mean distance from the truth over a size (NME), of everything and of each part.

    Args:
        predicted: Key points in pixels, ``(N, K, 2)``.
        truth: Key points in pixels, ``(N, K, 2)``.
        visible: Above 0 where labelled, ``(N, K)``.
        sizes: What distances are divided by, ``(N,)``; the larger side of each person's box in pixels here. For faces
            the field divides by the distance of the outer corners of the eyes.
        layout: Names parts that are given on their own.

    Returns:
        Means by name, ``"all"`` and the parts'; NaN where nothing is labelled.
    """
    ratio = np.linalg.norm(predicted - truth, axis=-1) / sizes[:, None]
    parts = {"all": slice(None)} | {
        name: slice(r.start, r.stop) for name, r in (layout.parts if layout else {}).items()
    }
    means = {}
    for name, part in parts.items():
        chosen = visible[:, part] > 0
        means[name] = float(ratio[:, part][chosen].mean()) if chosen.any() else float("nan")
    return means
