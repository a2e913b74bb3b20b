"""The evaluator of a run on KITTI's frames: boxes of the lidar carried to camera and image, judged as KITTI does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from torch import Tensor

from limbeck_core.errors import ConfigError, DataError
from limbeck_detection.data.kitti import CLASSES, Calibration, KittiObjects, wrap, write_objects
from limbeck_detection.evaluation.bev_pictures import draw_scenes
from limbeck_detection.evaluation.kitti import VIEWS, Overlaps, evaluate_kitti

JUDGED_RANGE = (0.0, -40.0, -3.0, 70.4, 40.0, 0.0)  # of the middle of the bottom, in the lidar's frame


def detections_to_objects(
    found: Mapping[str, Tensor],
    calibration: Calibration,
    image_size: tuple[int, int],
    *,
    classes: Sequence[str] = CLASSES,
    judged_range: Sequence[float] = JUDGED_RANGE,
) -> KittiObjects:
    """Carry detections of one frame from the lidar to camera and image.

    Those that the image does not show, and those whose position lies outside of the range, are dropped.

    Args:
        found: ``boxes`` ``(n, 7)``, ``scores`` and ``labels`` ``(n,)``.
        calibration: Of the frame.
        image_size: Width and height in pixels.
        classes: Names of the classes, by label.
        judged_range: Smallest x, y, z and greatest x, y, z.
    """
    lidar, scores = (found[name].detach().cpu().double().numpy() for name in ("boxes", "scores"))
    boxes = calibration.boxes_to_camera(lidar)
    rectangles = calibration.boxes_to_image(boxes)
    width, height = image_size
    seen = (rectangles[:, :2] < [width, height]).all(1) & (rectangles[:, 2:] > 0).all(1) & (boxes[:, 2] > 0)
    inside = (lidar[:, :3] > np.asarray(judged_range[:3])).all(1) & (lidar[:, :3] < np.asarray(judged_range[3:])).all(1)
    kept = np.flatnonzero(seen & inside)
    boxes = boxes[kept]
    unknown = np.full(len(kept), -1.0)
    return KittiObjects(
        tuple(classes[int(label)] for label in found["labels"].cpu()[kept]),
        unknown,
        unknown,
        wrap(boxes[:, 6] - np.arctan2(boxes[:, 0], boxes[:, 2])),
        rectangles[kept].clip(0, [width, height, width, height]),
        boxes,
        scores[kept],
    )


class KittiMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """KITTI's average precision in MMEngine's evaluator, for frames with ``truth=True``.

    Keys are those of :func:`~limbeck_detection.evaluation.evaluate_kitti`, as far as ``views`` and ``averages`` go; a
    run is usually judged by ``mean/3d/AP40/moderate``.

    Args:
        classes: Names of the classes, by label.
        overlaps: See :func:`~limbeck_detection.evaluation.evaluate_kitti`.
        views: Which of ``3d``, ``bev``, ``2d`` and ``aos`` are given.
        averages: Which of ``AP40`` and ``AP11`` are given.
        judged_range: See :func:`detections_to_objects`.
        results: Folder that files of results are written to as well; ``None`` writes none.
        pictures: Folder that the first frames are drawn into, seen from above; ``None`` draws none.
        num_pictures: How many of them.
        collect_device: ``"cpu"`` or ``"gpu"``, where ranks exchange predictions.
        prefix: Put before each key with a slash.

    Raises:
        ConfigError: if ``views`` or ``averages`` names something else.
    """

    default_prefix = ""

    def __init__(
        self,
        *,
        classes: Sequence[str] = CLASSES,
        overlaps: Overlaps = "strict",
        views: Sequence[str] = ("3d", "bev"),
        averages: Sequence[str] = ("AP40",),
        judged_range: Sequence[float] = JUDGED_RANGE,
        results: str | Path | None = None,
        pictures: str | Path | None = None,
        num_pictures: int = 8,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.classes = tuple(classes)
        self.overlaps: Overlaps = overlaps
        self.views = _among(views, (*VIEWS, "aos"), "views")
        self.averages = _among(averages, ("AP40", "AP11"), "averages")
        self.judged_range = tuple(judged_range)
        self.folder = None if results is None else Path(results)
        self.pictures = None if pictures is None else Path(pictures)
        self.num_pictures = num_pictures

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Tensor]]) -> None:
        """Take one batch.

        Args:
            data_batch: The batch with its ``frame``, ``truth``, ``calibration`` and ``image_size``.
            data_samples: ``boxes``, ``scores`` and ``labels`` of each frame.

        Raises:
            DataError: if the batch has no truth, or another number of frames than there are predictions.
        """
        missing = [name for name in ("frame", "truth", "calibration", "image_size") if name not in data_batch]
        if missing:
            raise DataError(
                f"evaluation needs {', '.join(missing)} in the batch, it has {', '.join(data_batch)}: give the data "
                "set truth=True"
            )
        if len(data_batch["frame"]) != len(data_samples):
            raise DataError(f"{len(data_batch['frame'])} frames were evaluated, but {len(data_samples)} results came")
        for i, found in enumerate(data_samples):
            frame = data_batch["frame"][i]
            objects = detections_to_objects(
                found,
                data_batch["calibration"][i],
                data_batch["image_size"][i],
                classes=self.classes,
                judged_range=self.judged_range,
            )
            if self.folder is not None:
                write_objects(objects, self.folder / f"{frame}.txt")
            if self.pictures is not None and len(self.results) < self.num_pictures:
                draw_scenes(
                    [data_batch["inputs"][i]],
                    {"found": [found]},
                    self.pictures / f"{frame}.png",
                    classes=self.classes,
                    truth=[data_batch["targets"][i]],
                )
            self.results.append((data_batch["truth"][i], objects))

    def compute_metrics(self, results: list[tuple[KittiObjects, KittiObjects]]) -> dict[str, float]:
        """Return the numbers of all frames."""
        truth, found = ([pair[side] for pair in results] for side in (0, 1))
        result = evaluate_kitti(truth, found, classes=self.classes, overlaps=self.overlaps)
        given = {}
        for key, value in result.items():
            _, view, average, _ = key.split("/")
            if view in self.views and average in self.averages:
                given[key] = value
        return given


def _among(values: Sequence[str], known: Sequence[str], name: str) -> tuple[str, ...]:
    strange = [value for value in values if value not in known]
    if strange:
        raise ConfigError(f"{name} of KittiMetric must be some of {', '.join(known)}, got {', '.join(strange)}")
    return tuple(values)
