"""What every data set here gives: one image in [0, 1], its boxes and labels, and an id."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import pil_to_tensor

from limbeck_core.build import build
from limbeck_core.errors import DataError, closest
from limbeck_detection.boxes import box_xyxy_to_cxcywh

Sample = dict[str, Any]
Transform = Callable[[Sample], Sample]
_LISTED = 12  # class names in one message


@dataclass(frozen=True)
class Annotated:
    """One image and what is marked in it.

    Args:
        path: The image file.
        boxes: ``(x1, y1, x2, y2)`` in pixels, float32, shape ``(n, 4)``.
        labels: Class of each box, int64, shape ``(n,)``.
        area: Area of each object in square pixels (of its mask, where there is one), float32, shape ``(n,)``.
        crowd: Boxes that are no target and cost nothing if found (COCO's crowds, VOC's difficult objects), bool,
            shape ``(n,)``.
    """

    path: Path
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    area: npt.NDArray[np.float32]
    crowd: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, path: Path, rows: Sequence[tuple[Sequence[float], int, float | None, bool]]) -> Annotated:
        """Make one of rows ``(corners, label, area or None, crowd)``; ``None`` is the area of the box."""
        boxes = np.asarray([row[0] for row in rows], dtype=np.float32).reshape(-1, 4)
        sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
        areas = [side if row[2] is None else row[2] for side, row in zip(sides, rows, strict=True)]
        return cls(
            path,
            boxes,
            np.asarray([row[1] for row in rows], dtype=np.int64),
            np.asarray(areas, dtype=np.float32),
            np.asarray([row[3] for row in rows], dtype=np.bool_),
        )


class DetectionDataset(Dataset[Sample]):
    """Images with boxes. A sample is a mapping:

    - ``inputs``: float ``(3, H, W)`` in [0, 1], RGB, after the transform; nothing normalises it further;
    - ``targets``: ``labels`` int64 ``(n,)`` and ``boxes`` float32 ``(n, 4)``, ``(cx, cy, w, h)`` in units of the image
      that the transform gave; crowds are left out;
    - ``sizes``: width and height of the file's image in pixels, int64 ``(2,)``, to which predictions are scaled;
    - ``ids``: a number of the image that stays the same;
    - ``truth``, if asked for: ``boxes`` ``(x1, y1, x2, y2)`` in pixels of the file's image, ``labels``, ``area`` and
      ``crowd``, as :class:`~limbeck_detection.evaluation.CocoMetric` needs them.

    Args:
        classes: Names of the classes, by label.
        annotated: The images; kept as a few flat arrays, which workers share with the main process.
        ids: Number of each image, int64. Default: its position.
        category_ids: Number of each class in files of predictions. Default: its label.
        transform: Applied to a mapping of ``image`` (uint8 ``tv_tensors.Image``), ``boxes``
            (``tv_tensors.BoundingBoxes``, corners in pixels) and ``labels``; or a config of it. Transforms of
            ``torchvision.transforms.v2`` move the boxes with the image.
        truth: Give ``truth`` as well, for evaluation.

    Raises:
        DataError: if image files are missing, with the first of them.
    """

    def __init__(
        self,
        classes: Sequence[str],
        annotated: Sequence[Annotated],
        *,
        ids: npt.NDArray[np.int64] | None = None,
        category_ids: Sequence[int] | None = None,
        transform: Transform | Mapping[str, Any] | None = None,
        truth: bool = False,
    ) -> None:
        self.classes = tuple(classes)
        self.category_ids = tuple(range(len(self.classes)) if category_ids is None else category_ids)
        self.ids = np.arange(len(annotated), dtype=np.int64) if ids is None else ids
        self.transform: Transform | None = build(transform)
        self.truth = truth
        _check_there([found.path for found in annotated])
        self._paths = np.asarray([str(found.path) for found in annotated])
        self._ends = np.cumsum([len(found.labels) for found in annotated])
        self._boxes = np.concatenate([found.boxes for found in annotated])
        self._labels = np.concatenate([found.labels for found in annotated])
        self._area = np.concatenate([found.area for found in annotated])
        self._crowd = np.concatenate([found.crowd for found in annotated])

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def annotated(self, position: int) -> Annotated:
        """Return one image's file and what is marked in it."""
        part = slice(int(self._ends[position - 1]) if position else 0, int(self._ends[position]))
        return Annotated(
            Path(str(self._paths[position])), self._boxes[part], self._labels[part], self._area[part], self._crowd[part]
        )

    def set_epoch(self, epoch: int) -> None:
        """Tell the transform which pass over the data a sample is read for; transforms may change over a run."""
        follow = getattr(self.transform, "set_epoch", None)
        if follow is not None:
            follow(epoch)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> Sample:
        identity = int(self.ids[position])  # also refuses a position outside
        found = self.annotated(position % len(self))
        image = read_image(found.path)
        height, width = image.shape[-2:]
        kept = ~found.crowd
        sample: Sample = {
            "image": tv_tensors.Image(image),
            "boxes": corners_in(found.boxes[kept], height, width),
            "labels": torch.from_numpy(found.labels[kept]),  # a copy, by the selection
        }
        if self.transform is not None:
            sample = self.transform(sample)
        result: Sample = {
            "inputs": as_float(sample["image"]),
            "targets": {"labels": sample["labels"], "boxes": in_units_of_the_image(sample["boxes"])},
            "sizes": torch.tensor([width, height]),
            "ids": identity,
        }
        if self.truth:
            names = ("boxes", "labels", "area", "crowd")
            result["truth"] = {name: torch.from_numpy(getattr(found, name).copy()) for name in names}
        return result


def _check_there(paths: Sequence[Path]) -> None:
    """Refuse missing image files all at once, by one listing of each folder."""
    there: dict[Path, set[str]] = {}
    for folder in {path.parent for path in paths}:
        there[folder] = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    missing = [path for path in paths if path.name not in there[path.parent]]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise DataError(
            f"{len(missing)} of {len(paths)} image files are missing: {', '.join(map(str, missing[:_LISTED]))}{more}; "
            "is the folder of the data set the right one (--data-root)?"
        )


def read_image(path: Path) -> Tensor:
    """Decode an image file into ``uint8 (3, H, W)``, RGB.

    Raises:
        DataError: if the file is missing or damaged, with its path.
    """
    try:
        with Image.open(path) as image:
            pixels: Tensor = pil_to_tensor(image.convert("RGB"))
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, DecompressionBombError and others
        raise DataError(f"{path} is no readable image ({type(error).__name__}: {error})") from error
    return pixels


def corners_in(boxes: npt.NDArray[np.float32] | Tensor, height: int, width: int) -> Any:
    """Boxes with corners in pixels of an image, as ``tv_tensors.BoundingBoxes``, which transforms move."""
    return tv_tensors.BoundingBoxes(
        torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        format=tv_tensors.BoundingBoxFormat.XYXY,
        canvas_size=(height, width),
    )


def as_float(image: Tensor) -> Tensor:
    """A plain float tensor in [0, 1] of an image in bytes; a float image stays as it is."""
    plain = torch.as_tensor(image).as_subclass(Tensor)
    return plain if plain.is_floating_point() else plain.float() / 255


def in_units_of_the_image(boxes: Any) -> Tensor:
    """Turn ``BoundingBoxes`` with corners in pixels into ``(cx, cy, w, h)`` between 0 and 1."""
    height, width = boxes.canvas_size
    plain = boxes.as_subclass(Tensor)
    return box_xyxy_to_cxcywh(plain) / torch.tensor([width, height, width, height], dtype=plain.dtype)


def label_by_name(classes: Sequence[str], name: str, where: str) -> int:
    """Return the label of a class.

    Raises:
        DataError: if the list lacks it, with the closest name.
    """
    try:
        return list(classes).index(name)
    except ValueError:
        raise DataError(
            f"{where} marks an object of the class {name!r}, which the list of {len(classes)} classes lacks: "
            f"{closest(name, classes)}"
        ) from None


def class_names(classes: Sequence[str] | str | Path) -> tuple[str, ...]:
    """Names given as a sequence, or in a text file with one name a line.

    Raises:
        DataError: if the file cannot be read, or a name is empty or stands twice.
    """
    if isinstance(classes, (str, Path)):
        names = [line.strip() for line in read_text(Path(classes)).splitlines() if line.strip()]
    else:
        names = [str(name) for name in classes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice or "" in names:
        raise DataError(f"a list of classes needs different names, at least one, got {names[:_LISTED]}")
    return tuple(names)


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        DataError: if it is missing or no UTF-8, with its path.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
