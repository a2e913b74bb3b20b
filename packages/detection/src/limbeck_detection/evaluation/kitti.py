"""KITTI's object benchmark: average precision in the image, from above and in space, and of orientation.

Geiger et al., Are we ready for autonomous driving? The KITTI vision benchmark suite, CVPR 2012, section 3; 40 positions
of recall from Simonelli et al., Disentangling Monocular 3D Object Detection, arXiv:1905.12365, section 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import box_iou

from limbeck_core.errors import DataError, closest
from limbeck_detection.data.dataset import read_text
from limbeck_detection.data.kitti import (
    CLASSES,
    DONT_CARE,
    LEAST_HEIGHT,
    MOST_OCCLUDED,
    MOST_TRUNCATED,
    KittiObjects,
    read_objects,
)
from limbeck_detection.rotated import bev_iou, box_iou_3d

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Overlaps = Literal["strict", "loose"]

LEVELS = ("easy", "moderate", "hard")
VIEWS = ("2d", "bev", "3d")
POSITIONS = 41  # of recall: 0, 1/40, ..., 1
_NEIGHBOURS = {"car": "van", "pedestrian": "person_sitting"}
_STRICT = {"car": (0.7, 0.7, 0.7), "pedestrian": (0.5, 0.5, 0.5), "cyclist": (0.5, 0.5, 0.5)}
_LOOSE = {"car": (0.7, 0.5, 0.5), "pedestrian": (0.5, 0.25, 0.25), "cyclist": (0.5, 0.25, 0.25)}
_OTHER = {"strict": (0.5, 0.5, 0.5), "loose": (0.5, 0.25, 0.25)}  # classes that KITTI does not judge


@dataclass(frozen=True)
class _Frame:
    """One frame with its overlaps, which serve every class and difficulty.

    Args:
        truth: True objects but ``DontCare``.
        found: Detections.
        overlaps: IoU of each detection with each object, ``(detections, objects)``, by view.
        uncared: Share of each detection inside each ``DontCare`` region, ``(detections, regions)``.
    """

    truth: KittiObjects
    found: KittiObjects
    overlaps: dict[str, Array]
    uncared: Array


@dataclass(frozen=True)
class _Chosen:
    """What counts of a frame for one class and difficulty: -1 is out, 0 counts, 1 is ignored where it is matched."""

    frame: _Frame
    truth: npt.NDArray[np.int64]
    found: npt.NDArray[np.int64]


def evaluate_kitti(
    truth: Sequence[KittiObjects],
    found: Sequence[KittiObjects],
    *,
    classes: Sequence[str] = CLASSES,
    overlaps: Overlaps = "strict",
) -> dict[str, float]:
    """Judge the detections of all frames as KITTI does.

    A detection fits an object by its IoU: above 0.7 for cars and 0.5 for others in the image, from above and in space
    (``"loose"``: 0.5 and 0.25 from above and in space). Objects that are too small, hidden or cut off for a difficulty,
    and those of neighbouring classes (vans, sitting people), are neither found nor missed; so are detections of less
    height in the image than the difficulty asks for. As in KITTI's own program such a low detection may be of any
    class. Regions called ``DontCare`` excuse false detections in the image alone.

    Args:
        truth: True objects of each frame.
        found: Detections of each frame, with scores.
        classes: Names of the classes that are judged.
        overlaps: ``"strict"`` or ``"loose"``.

    Returns:
        Per cent, by ``<class>/<view>/<AP11 or AP40>/<easy, moderate or hard>``, where the view is ``2d``, ``bev``,
        ``3d`` or ``aos`` (orientation in the image, where detections have an ``alpha``), and the means over classes
        by ``mean/...``. What has no object to find is left out.

    Raises:
        DataError: if there are no frames, other numbers of them on the two sides, or a detection is not finite.
        ValueError: if ``overlaps`` is neither.
    """
    if overlaps not in ("strict", "loose"):
        raise ValueError(f"overlaps must be 'strict' or 'loose', got {overlaps!r}")
    if not len(truth) or len(truth) != len(found):
        raise DataError(f"every frame needs its truth and its detections, got {len(truth)} and {len(found)} frames")
    _check_found(found)
    frames = [_prepare(objects, detections) for objects, detections in zip(truth, found, strict=True)]
    oriented = all((detections.alpha != -10).all() for detections in found)
    result: dict[str, float] = {}
    for name in classes:
        least = (_STRICT if overlaps == "strict" else _LOOSE).get(name.lower(), _OTHER[overlaps])
        for level in range(len(LEVELS)):
            chosen = [_choose(frame, name.lower(), level) for frame in frames]
            count = sum(int((one.truth == 0).sum()) for one in chosen)
            if not count:
                continue
            for view, overlap in zip(VIEWS, least, strict=True):
                precision, orientation = _curve(chosen, view, overlap, count)
                _add(result, f"{name}/{view}", level, precision)
                if view == "2d" and oriented:
                    _add(result, f"{name}/aos", level, orientation)
    return {**result, **_means(result, classes)}


def evaluate_kitti_folders(
    labels: str | Path,
    results: str | Path,
    *,
    split: str | Path | None = None,
    classes: Sequence[str] = CLASSES,
    overlaps: Overlaps = "strict",
) -> dict[str, float]:
    """Judge a folder of result files against a folder of label files; a frame without detections has an empty file.

    Args:
        labels: Folder of KITTI's label files, ``label_2``.
        results: Folder of files of the same names, with scores.
        split: Text file with the names of the frames to judge, one a line. Default: every frame that has labels.
        classes: See :func:`evaluate_kitti`.
        overlaps: See :func:`evaluate_kitti`.

    Raises:
        DataError: if a file is missing or damaged, or as :func:`evaluate_kitti`.
    """
    labels, results = Path(labels), Path(results)
    names = sorted(path.stem for path in labels.glob("*.txt")) if split is None else read_text(Path(split)).split()
    if not names:
        raise DataError(f"there is nothing to judge: {split or labels} names no frame")
    missing = [name for name in names if not (results / f"{name}.txt").is_file()]
    if missing:
        near = closest(missing[0], [path.stem for path in sorted(results.glob("*.txt"))])
        raise DataError(
            f"{len(missing)} of {len(names)} frames have no file in {results}, the first of them {missing[0]}.txt "
            f"({near}): a frame without detections needs an empty file; split=... names the frames to judge"
        )
    found = [read_objects(results / f"{name}.txt") for name in names]
    for name, detections in zip(names, found, strict=True):
        if np.isnan(detections.scores).any():
            raise DataError(f"{results / name}.txt has objects without a score, the last number of a line of results")
    return evaluate_kitti([read_objects(labels / f"{n}.txt") for n in names], found, classes=classes, overlaps=overlaps)


def kitti_table(result: Mapping[str, float], *, average: str = "AP40") -> str:
    """Lay the numbers out: a row for each class and view, a column for each difficulty.

    Args:
        result: What :func:`evaluate_kitti` returned.
        average: ``"AP40"`` or ``"AP11"``.
    """
    rows = list(dict.fromkeys(tuple(key.split("/")[:2]) for key in result))
    order = {view: place for place, view in enumerate(("3d", "bev", "2d", "aos"))}
    names = list(dict.fromkeys(name for name, _ in rows))
    rows.sort(key=lambda row: (names.index(row[0]), order[row[1]]))
    width = max((len(name) for name in names), default=0)
    lines = [f"{average:<{width}}        " + "".join(f"{level:>10}" for level in LEVELS)]
    for name, view in rows:
        values = [result.get(f"{name}/{view}/{average}/{level}") for level in LEVELS]
        lines.append(f"{name:<{width}}  {view:<6}" + "".join(f"{'-' if v is None else f'{v:.2f}':>10}" for v in values))
    return "\n".join(lines)


def _check_found(found: Sequence[KittiObjects]) -> None:
    for frame, detections in enumerate(found):
        values = (detections.boxes, detections.boxes_2d, detections.scores[:, None], detections.alpha[:, None])
        bad = ~np.isfinite(np.concatenate(values, 1)).all(1)
        if bad.any():
            first = int(bad.argmax())
            raise DataError(
                f"detection {first} of frame {frame} ({detections.names[first]}) holds a number that is not finite, or "
                "has no score"
            )


def _prepare(truth: KittiObjects, found: KittiObjects) -> _Frame:
    regions = [i for i, name in enumerate(truth.names) if name.lower() == DONT_CARE.lower()]
    objects = truth.take([i for i in range(len(truth)) if i not in set(regions)])
    ours, theirs = torch.from_numpy(found.boxes_2d), torch.from_numpy(objects.boxes_2d)
    overlaps = {
        "2d": torch.nan_to_num(box_iou(ours, theirs)).numpy(),
        "bev": bev_iou(_upright(found.boxes), _upright(objects.boxes)).numpy(),
        "3d": box_iou_3d(_upright(found.boxes), _upright(objects.boxes)).numpy(),
    }
    a, b = found.boxes_2d[:, None], truth.boxes_2d[regions][None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    area = (found.boxes_2d[:, 2:] - found.boxes_2d[:, :2]).prod(1)[:, None]
    uncared = sides.clip(min=0).prod(-1) / np.maximum(area, 1e-12)
    return _Frame(objects, found, overlaps, uncared)


def _upright(boxes: Array) -> torch.Tensor:
    """The camera's boxes in a frame whose third axis points up: x right, z forward, and angles the other way round."""
    x, y, z, length, width, height, yaw = boxes.T
    return torch.from_numpy(np.stack([x, z, -y, length, width, height, -yaw], 1))


def _choose(frame: _Frame, name: str, level: int) -> _Chosen:
    truth, found = frame.truth, frame.found
    own = np.array([other.lower() == name for other in truth.names], dtype=np.bool_)
    neighbour = np.array([other.lower() == _NEIGHBOURS.get(name) for other in truth.names], dtype=np.bool_)
    height = truth.boxes_2d[:, 3] - truth.boxes_2d[:, 1]
    hard = (truth.occlusion > MOST_OCCLUDED[level]) | (truth.truncation > MOST_TRUNCATED[level])
    hard |= height <= LEAST_HEIGHT[level]
    objects = np.where(own & ~hard, 0, np.where(own | neighbour, 1, -1))
    mine = np.array([other.lower() == name for other in found.names], dtype=np.bool_)
    low = np.abs(found.boxes_2d[:, 3] - found.boxes_2d[:, 1]) < LEAST_HEIGHT[level]
    return _Chosen(frame, objects, np.where(low, 1, np.where(mine, 0, -1)))


def _curve(chosen: Sequence[_Chosen], view: str, overlap: float, count: int) -> tuple[Array, Array]:
    """Precision and orientation at each position of recall, from the last position back never falling."""
    scores = np.concatenate([_scores_of_hits(one, view, overlap) for one in chosen])
    thresholds = _thresholds(scores, count)
    hits, false, similar = (np.zeros(len(thresholds)) for _ in range(3))
    for one in chosen:
        right, wrong, alike = _count(one, view, overlap, thresholds)
        hits, false, similar = hits + right, false + wrong, similar + alike
    total = np.maximum(hits + false, 1)
    curves = np.zeros((2, POSITIONS))
    curves[:, : len(thresholds)] = np.stack([hits, similar]) / total
    monotone = np.maximum.accumulate(curves[:, ::-1], 1)[:, ::-1]
    return monotone[0], monotone[1]


def _scores_of_hits(one: _Chosen, view: str, overlap: float) -> Array:
    """Scores of the detections that objects are found by, each taking the best score that fits and is left."""
    fits = one.frame.overlaps[view] > overlap
    scores = one.frame.found.scores
    free = one.found != -1
    hits = []
    for index in np.flatnonzero(one.truth != -1):
        mine = np.flatnonzero(free & fits[:, index])
        if not len(mine):
            continue
        best = mine[scores[mine].argmax()]
        free[best] = False
        if one.truth[index] == 0 and one.found[best] == 0:
            hits.append(scores[best])
    return np.asarray(hits, dtype=np.float64)


def _thresholds(scores: Array, count: int) -> Array:
    """The scores at which recall comes nearest to 0, 1/40, ..., 1 of ``count`` objects."""
    ordered = np.sort(scores)[::-1]
    chosen: list[float] = []
    recall = 0.0
    for index, score in enumerate(ordered):
        last = index == len(ordered) - 1
        here, after = (index + 1) / count, (index + 2) / count
        if not last and after - recall < recall - here:
            continue
        chosen.append(float(score))
        recall += 1 / (POSITIONS - 1)
    return np.asarray(chosen[:POSITIONS], dtype=np.float64)


def _count(one: _Chosen, view: str, overlap: float, thresholds: Array) -> tuple[Array, Array, Array]:
    """Hits, false detections and similarity of orientation at each threshold."""
    frame = one.frame
    hits, similar = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    counting = one.found == 0
    left: Bools = (frame.found.scores >= thresholds[:, None]) & (one.found != -1)  # (thresholds, detections)
    if not left.any():
        return hits, hits, similar
    rows = np.arange(len(thresholds))
    shared = frame.overlaps[view]
    for index in np.flatnonzero((one.truth != -1) & (shared > overlap).any(0)):
        fits = left & (shared[:, index] > overlap)
        proper = fits & counting
        # the best overlap among detections that count, or the first that is ignored
        best = np.where(proper, shared[:, index], -1.0).argmax(1)
        choice = np.where(proper.any(1), best, fits.argmax(1))
        taken = fits.any(1)
        left[rows[taken], choice[taken]] = False
        if one.truth[index] == 0:
            hit = taken & counting[choice]
            turn = frame.truth.alpha[index] - frame.found.alpha[choice]
            hits += hit
            similar += hit * (1 + np.cos(turn)) / 2
    false = left & counting
    if view == "2d":
        false &= ~(frame.uncared > overlap).any(1)
    return hits, false.sum(1).astype(np.float64), similar


def _add(result: dict[str, float], name: str, level: int, curve: Array) -> None:
    result[f"{name}/AP11/{LEVELS[level]}"] = 100 * float(curve[::4].mean())
    result[f"{name}/AP40/{LEVELS[level]}"] = 100 * float(curve[1:].mean())


def _means(result: Mapping[str, float], classes: Sequence[str]) -> dict[str, float]:
    tails = dict.fromkeys(key.split("/", 1)[1] for key in result)
    found = {}
    for tail in tails:
        values = [result[f"{name}/{tail}"] for name in classes if f"{name}/{tail}" in result]
        found[f"mean/{tail}"] = float(np.mean(values))
    return found
