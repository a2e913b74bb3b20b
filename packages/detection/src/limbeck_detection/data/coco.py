"""Boxes in COCO's format: one JSON file with images, annotations and categories."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from limbeck_core.errors import DataError, closest
from limbeck_detection.data.dataset import Annotated, DetectionDataset, Transform, class_names, read_text

_SMALLEST = 1e-3  # pixels; a box without extent has no IoU with anything


def read_coco(path: Path) -> dict[str, Any]:
    """Read an annotation file.

    Raises:
        DataError: if it is missing, no JSON, or lacks images or categories.
    """
    try:
        content: dict[str, Any] = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is no JSON ({error})") from error
    wanted = ("images", "annotations", "categories")
    missing = [name for name in wanted if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    if missing:
        has = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise DataError(
            f"{path} is no COCO annotation file: it needs the lists images, annotations and categories and lacks "
            f"{', '.join(missing)} (it has: {has})"
        )
    return content


class CocoDetection(DetectionDataset):
    """Images with boxes in COCO's format (also Objects365, LVIS without its federated part, and most labelling tools).

    Labels count the categories in ascending order of their ids, which in COCO have gaps: label 0 is category 1, label
    79 category 90. Boxes are cut at the image's edge; those without extent are left out with a warning that counts
    them, and an image without boxes stays. Crowds are no targets and are ignored in evaluation.

    Args:
        root: Folder of the data set.
        images: Folder of the images, below ``root``.
        annotations: The JSON file, below ``root``.
        classes: Names in the order of the labels, or a text file with one name a line, where the order must be another
            one than the file's: a validation set must have the training set's. Default: those of the file.
        without_boxes: Keep images in which nothing is marked.
        transform: See :class:`~limbeck_detection.data.dataset.DetectionDataset`.
        truth: See :class:`~limbeck_detection.data.dataset.DetectionDataset`.

    Raises:
        DataError: if the file is missing or not COCO's, names an unknown image or category, gives one id or name twice,
            or no image is left; if image files are missing; or if ``classes`` and the file's categories differ.
    """

    def __init__(
        self,
        root: str | Path,
        images: str = "train2017",
        annotations: str = "annotations/instances_train2017.json",
        *,
        classes: Sequence[str] | str | Path | None = None,
        without_boxes: bool = True,
        transform: Transform | Mapping[str, Any] | None = None,
        truth: bool = False,
    ) -> None:
        self.file = Path(root) / annotations
        self.folder = Path(root) / images
        content = read_coco(self.file)
        names, categories = self._classes(content["categories"], classes)
        label_of = {category: label for label, category in enumerate(categories)}
        rows: dict[int, list[tuple[Sequence[float], int, float | None, bool]]] = {}
        known: dict[int, tuple[str, int, int]] = {}
        for image in content["images"]:
            try:
                identity, entry = int(image["id"]), (str(image["file_name"]), int(image["width"]), int(image["height"]))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{self.file}: an image needs id, file_name, width and height, got {image!r}"
                ) from error
            if identity in known:
                raise DataError(
                    f"{self.file}: two images have the id {identity}, {known[identity][0]} and {entry[0]}, so their "
                    "boxes cannot be told apart: number the images anew"
                )
            known[identity] = entry
        left_out = []
        for mark in content["annotations"]:
            row = self._row(mark, known, label_of)
            if row is None:
                left_out.append(mark.get("id"))
            else:
                rows.setdefault(int(mark["image_id"]), []).append(row)
        if left_out:
            warnings.warn(
                f"{self.file}: {len(left_out)} of {len(content['annotations'])} boxes have no extent inside of their "
                f"image and are left out, the first is annotation {left_out[0]}",
                stacklevel=2,
            )
        ids = sorted(identity for identity in known if without_boxes or identity in rows)
        if not ids:
            raise DataError(f"{self.file} names no image to read" + ("" if without_boxes else " that has a box"))
        annotated = [Annotated.of(self.folder / known[i][0], rows.get(i, [])) for i in ids]
        super().__init__(
            names,
            annotated,
            ids=np.asarray(ids, dtype=np.int64),
            category_ids=categories,
            transform=transform,
            truth=truth,
        )

    def _classes(
        self, categories: Sequence[Mapping[str, Any]], classes: Sequence[str] | str | Path | None
    ) -> tuple[tuple[str, ...], tuple[int, ...]]:
        try:
            pairs = [(int(category["id"]), str(category["name"])) for category in categories]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.file}: a category needs an id and a name ({error})") from error
        by_id = dict(pairs)
        for position, what in enumerate(("id", "name")):
            counts = Counter(pair[position] for pair in pairs)
            twice = [value for value, count in counts.items() if count > 1]
            if twice:
                raise DataError(f"{self.file}: two categories have the {what} {twice[0]!r}: give each its own")
        ordered = sorted(by_id)
        if not ordered:
            raise DataError(f"{self.file} names no category, so there is no class to learn")
        if classes is None:
            return tuple(by_id[identity] for identity in ordered), tuple(ordered)
        names = class_names(classes)
        ids = {name: identity for identity, name in by_id.items()}
        for name in ids:
            if name not in names:
                raise DataError(
                    f"{self.file} has the category {name!r}, which the list of {len(names)} classes lacks: "
                    f"{closest(name, names)}"
                )
        absent = [name for name in names if name not in ids]
        if absent:
            raise DataError(
                f"{self.file} lacks the class {absent[0]!r} of the list: {closest(absent[0], ids)}; a category may "
                "stand in the file without annotations"
            )
        return names, tuple(ids[name] for name in names)

    def _row(
        self, mark: Mapping[str, Any], known: Mapping[int, tuple[str, int, int]], label_of: Mapping[int, int]
    ) -> tuple[Sequence[float], int, float | None, bool] | None:
        try:
            image, category = int(mark["image_id"]), int(mark["category_id"])
            x, y, width, height = (float(number) for number in mark["bbox"])
            if not all(map(math.isfinite, (x, y, width, height))):
                raise ValueError("the box is not finite")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.file}: an annotation needs image_id, category_id and bbox [x, y, width, height], got "
                f"{str(mark)[:200]}"
            ) from error
        for name, identity, table in (("image", image, known), ("category", category, label_of)):
            if identity not in table:
                raise DataError(f"{self.file}: annotation {mark.get('id')} names the {name} {identity}, which it lacks")
        _, image_width, image_height = known[image]
        left, right = (min(max(edge, 0.0), image_width) for edge in (x, x + width))
        top, bottom = (min(max(edge, 0.0), image_height) for edge in (y, y + height))
        if right - left < _SMALLEST or bottom - top < _SMALLEST:
            return None
        area = float(mark["area"]) if mark.get("area") is not None else None
        return (left, top, right, bottom), label_of[category], area, bool(mark.get("iscrowd", 0))
