"""People with key points, one crop each: COCO, COCO-WholeBody and UBody annotation files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from limbeck_core.build import build
from limbeck_core.errors import DataError
from limbeck_pose.data.augmentation import Augmentation
from limbeck_pose.data.crops import Array, Crop
from limbeck_pose.heatmap import Heatmap
from limbeck_pose.keypoints import WHOLE_BODY, Layout
from limbeck_pose.simcc import SimCC

# of a COCO-WholeBody annotation: where each part's triples (x, y, v) stand, in the points' order, and how many
PARTS = (("keypoints", 17), ("foot_kpts", 6), ("face_kpts", 68), ("lefthand_kpts", 21), ("righthand_kpts", 21))


@dataclass(frozen=True)
class Person:
    """One person of one image.

    Args:
        image_id: Number of the image in the annotation file.
        file: Path of the image.
        box: x, y, width and height in pixels.
        points: Key points in pixels, ``(K, 2)``.
        visible: Above 0 where labelled, ``(K,)``; all 0 for a detected box without truth.
        annotations: The annotation file of its image.
        score: Confidence of the box; 1 for true boxes.
    """

    image_id: int
    file: Path
    box: Array
    points: Array
    visible: Array
    annotations: Path
    score: float = 1.0


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        DataError: if it is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}: give the data set's root with --data-root or LIMBECK_DATA")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no readable JSON ({error}): download it again") from error


def keypoints_of(annotation: Mapping[str, Any], layout: Layout = WHOLE_BODY) -> tuple[Array, Array]:
    """Return key points ``(K, 2)`` in pixels and visibility ``(K,)``, 0 or 1, of an annotation.

    Raises:
        DataError: as :func:`triples_of`.
    """
    table = triples_of(annotation, layout)
    return table[:, :2], (table[:, 2] > 0).astype(np.float64)


def triples_of(annotation: Mapping[str, Any], layout: Layout = WHOLE_BODY) -> Array:
    """Return x, y and visibility (of an annotation) or score (of a result) of each key point, ``(K, 3)``.

    Whole bodies may come in five lists, as in COCO-WholeBody, or in one list of 133 triples, as others write UBody.

    Raises:
        DataError: if a list is missing or has another length, or a number is NaN or infinite.
    """
    triples = annotation.get("keypoints")
    if layout.count == WHOLE_BODY.count and triples is not None and len(triples) == 3 * PARTS[0][1]:
        parts = [annotation.get(name) for name, _ in PARTS]
        for (name, count), part in zip(PARTS, parts, strict=True):
            if part is None or len(part) != 3 * count:
                raise DataError(
                    f"annotation {annotation.get('id')} must have {name!r} with {count} triples (x, y, v) for "
                    f"{layout.count} key points, got {'nothing' if part is None else f'{len(part)} numbers'}: use the "
                    "COCO-WholeBody file, or a model and a layout of 17 key points"
                )
        triples = [value for part in parts for value in part]  # type: ignore[union-attr]
    if triples is None or len(triples) != 3 * layout.count:
        raise DataError(
            f"annotation {annotation.get('id')} must have {layout.count} key points (x, y, v), got "
            f"{0 if triples is None else len(triples) / 3:g}: give the data set the layout of its file"
        )
    table: Array = np.asarray(triples, dtype=np.float64).reshape(-1, 3)
    wrong = np.flatnonzero(~np.isfinite(table).all(1))
    if wrong.size:
        raise DataError(
            f"annotation {annotation.get('id')}: key point {wrong[0]} of {layout.count} is {table[wrong[0]].tolist()}, "
            f"and {wrong.size} in all are NaN or infinite: mend the file, or give points that nobody knows zeros"
        )
    return table


class People(Dataset[dict[str, Any]]):
    """Crops of people for a SimCC or a heatmap head.

    An item has ``inputs``, the crop as RGB bytes ``(3, H, W)``; ``targets``, what the codec encodes: labels along x
    ``(K, bins)``, along y, and weights ``(K,)``, as :class:`~limbeck_pose.simcc.SimCCTargets`, or heatmaps and weights,
    as :class:`~limbeck_pose.heatmap.HeatmapTargets`; and ``person``, what an evaluator needs to carry key
    points back to the image: ``image_id``, ``matrix`` ``(2, 3)``, ``score`` and ``area`` of the box, the true
    ``points`` ``(K, 2)`` in the image and which of them are ``visible`` ``(K,)``, and the path of the annotation file.

    Args:
        annotations: Annotation file, in the layout of COCO or COCO-WholeBody; below ``root`` if relative. UBody has one
            a scene; a sequence of files is read in order.
        images: Folder of the images, below ``root`` if relative; one for all files, or one a file.
        root: Folder of the data set.
        codec: Codec of the head that is trained, or its config.
        layout: Which key points the file has. Default: the 133 of COCO-WholeBody.
        augmentation: How crops are drawn in training, or its config; ``None`` cuts them out plainly.
        fine: Augmentation of the last epochs, or its config; ``None`` keeps the first one.
        fine_from: First epoch (from 0) that draws with ``fine``.
        every: Take every so many-th image, one number for all files or one a file; the paper takes every 10th frame of
            UBody.
        boxes: File of detected boxes, a list of ``image_id``, ``bbox`` and ``score``; people are then those boxes, and
            have no labels. ``None`` takes the true boxes.
        least_score: Detected boxes below this score are left out.

    Raises:
        DataError: if a file is missing, damaged or of another layout, or nobody is left.
    """

    def __init__(
        self,
        annotations: str | Path | Sequence[str | Path],
        *,
        images: str | Path | Sequence[str | Path],
        root: str | Path = "",
        codec: SimCC | Heatmap | Mapping[str, Any],
        layout: Layout = WHOLE_BODY,
        augmentation: Augmentation | Mapping[str, Any] | None = None,
        fine: Augmentation | Mapping[str, Any] | None = None,
        fine_from: int | None = None,
        every: int | Sequence[int] = 1,
        boxes: str | Path | None = None,
        least_score: float = 0.0,
    ) -> None:
        self.layout = layout
        self.codec: SimCC | Heatmap = build(codec) if isinstance(codec, Mapping) else codec
        self.augmentation, self.fine = (
            build(given) if isinstance(given, Mapping) else given for given in (augmentation, fine)
        )
        self.fine_from = fine_from
        self.epoch = 0
        base = Path(root)
        files = [annotations] if isinstance(annotations, (str, Path)) else list(annotations)
        folders = [images] * len(files) if isinstance(images, (str, Path)) else list(images)
        steps = [every] * len(files) if isinstance(every, int) else list(every)
        if len(folders) != len(files) or len(steps) != len(files) or not files:
            raise DataError(
                f"expected one folder of images, or one a file, got {len(folders)} for {len(files)} files, "
                f"and one step (every), or one a file, got {len(steps)}"
            )
        self.people = [
            person
            for file, folder, step in zip(files, folders, steps, strict=True)
            for person in read_people(
                base / file,
                base / folder,
                layout,
                every=step,
                boxes=None if boxes is None else base / boxes,
                least_score=least_score,
            )
        ]
        if not self.people:
            raise DataError(f"no person with a box and a key point is in {', '.join(map(str, files))}")

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next items are for, counted from 0; the engine does."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of people."""
        return len(self.people)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one person; see the class."""
        person = self.people[index]
        image = read_image(person.file)
        crop = Crop.around(person.box, self.codec.input_size, image_width=image.shape[1])
        late = self.fine is not None and self.fine_from is not None and self.epoch >= self.fine_from
        augmentation = self.fine if late else self.augmentation
        if augmentation is not None:
            crop = augmentation.crop(crop, person.points, person.visible, self.layout)
        cut = crop.cut(image)
        if augmentation is not None:
            cut = augmentation.paint(cut)
        points, visible = crop.apply(person.points), person.visible
        if crop.mirrored:
            points, visible = points[self.layout.mirrored], visible[self.layout.mirrored]
        encoded = self.codec.encode(torch.from_numpy(points)[None].float(), torch.from_numpy(visible)[None].float())
        area = float(person.box[2] * person.box[3])
        return {
            "inputs": torch.from_numpy(np.ascontiguousarray(cut.transpose(2, 0, 1))),
            "targets": [getattr(encoded, field.name)[0] for field in fields(encoded)],
            "person": {
                "image_id": person.image_id,
                "matrix": torch.from_numpy(crop.matrix),
                "score": person.score,
                "area": area,
                "points": torch.from_numpy(person.points),
                "visible": torch.from_numpy(person.visible),
                "annotations": str(person.annotations),
            },
        }


def read_people(
    path: Path,
    images: Path,
    layout: Layout = WHOLE_BODY,
    *,
    every: int = 1,
    boxes: Path | None = None,
    least_score: float = 0.0,
) -> list[Person]:
    """Return the people of an annotation file, in its order, without crowds and people without a box or key point.

    People whose box has no part inside the image are left out as well, with a warning.

    Args:
        path: The annotation file.
        images: Folder of the images.
        layout: Which key points it has.
        every: Take every so many-th image.
        boxes: Detected boxes instead of true ones.
        least_score: Detected boxes below this score are left out.

    Raises:
        DataError: if a file is missing, damaged or of another layout.
    """
    content = read_json(path)
    if not isinstance(content, Mapping) or not {"images", "annotations"} <= content.keys():
        raise DataError(f"{path} must have 'images' and 'annotations', as COCO's annotation files do")
    entries = {entry["id"]: entry for entry in content["images"][::every]}
    files = {number: images / entry["file_name"] for number, entry in entries.items()}
    outside: list[str] = []
    people = []
    if boxes is not None:
        for row, found in enumerate(_detections(boxes)):
            number = found["image_id"]
            if number not in files or found["score"] < least_score or found.get("category_id", 1) != 1:
                continue
            box = _box(found["bbox"], f"detection {row} of {boxes}")
            if min(box[2:]) <= 0:
                continue
            if _is_outside(box, entries[number]):
                outside.append(f"detection {row} of image {number}, {box.tolist()}")
                continue
            nowhere = np.zeros((layout.count, 2))
            score = float(found["score"])
            people.append(Person(number, files[number], box, nowhere, np.zeros(layout.count), path, score))
        _tell_outside(outside, boxes)
        return people
    for annotation in content["annotations"]:
        number = annotation["image_id"]
        if number not in files or annotation.get("iscrowd", 0):
            continue
        box = _box(annotation["bbox"], f"annotation {annotation.get('id')} of {path}")
        if min(box[2:]) <= 0:
            continue
        points, visible = keypoints_of(annotation, layout)
        if not visible.any():
            continue
        if _is_outside(box, entries[number]):
            outside.append(f"annotation {annotation.get('id')} of image {number}, {box.tolist()}")
            continue
        people.append(Person(number, files[number], box, points, visible, path))
    _tell_outside(outside, path)
    return people


def _detections(path: Path) -> list[Any]:
    found = read_json(path)
    if not isinstance(found, list) or any(not {"image_id", "bbox", "score"} <= box.keys() for box in found):
        raise DataError(f"{path} must be a list of boxes with image_id, bbox (x, y, width, height) and score")
    return found


def _box(values: Any, where: str) -> Array:
    box: Array = np.asarray(values, dtype=np.float64)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise DataError(f"{where} must have a box of four finite numbers (x, y, width, height), got {values}")
    return box


def _is_outside(box: Array, entry: Mapping[str, Any]) -> bool:
    """Whether no part of a box lies inside of its image, whose size the file may leave out."""
    x, y, width, height = box
    return bool(
        x + width <= 0 or y + height <= 0 or x >= entry.get("width", np.inf) or y >= entry.get("height", np.inf)
    )


def _tell_outside(outside: list[str], path: Path) -> None:
    if outside:
        warnings.warn(
            f"{len(outside)} of the people of {path} are left out, since no part of their box lies inside of the "
            f"image; the first is {outside[0]}",
            stacklevel=2,
        )


def read_image(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an image as RGB bytes ``(H, W, 3)``.

    Raises:
        DataError: if it is missing or damaged.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if image is None:
        reason = "is damaged or no image" if path.is_file() else "is missing"
        raise DataError(f"the image {path} {reason}: check the folder of images that the data set was given")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8)
