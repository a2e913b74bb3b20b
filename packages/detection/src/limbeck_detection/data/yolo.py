"""Boxes in YOLO's format: a text file for each image, one line ``class cx cy w h`` for each box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from limbeck_core.errors import DataError
from limbeck_detection.data.dataset import Annotated, DetectionDataset, Transform, class_names, read_text

_EXTENSIONS = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})


class YoloDetection(DetectionDataset):
    """Images with boxes in YOLO's layout: ``images/SPLIT/NAME.jpg`` beside ``labels/SPLIT/NAME.txt``.

    A line holds the class and the box ``cx cy w h`` in units of the image. An image without a text file, or with an
    empty one, has no boxes. Ids count the images in alphabetical order.

    Args:
        root: Folder of the data set.
        split: Folder below ``images`` and ``labels``; ``""`` for none.
        classes: Names by label: a sequence, a text file with one name a line, or a YAML file with ``names`` (a list, or
            a mapping from label to name), below ``root`` if relative.
        transform: See :class:`~limbeck_detection.data.dataset.DetectionDataset`.
        truth: See :class:`~limbeck_detection.data.dataset.DetectionDataset`.

    Raises:
        DataError: if there are no images, a line is not of that form, or a label is not in ``classes``.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        classes: Sequence[str] | str | Path = "data.yaml",
        transform: Transform | Mapping[str, Any] | None = None,
        truth: bool = False,
    ) -> None:
        folder = Path(root)
        names = _names(folder / classes) if isinstance(classes, (str, Path)) else class_names(classes)
        images = folder / "images" / split
        files = sorted(path for path in images.rglob("*") if path.suffix.lower() in _EXTENSIONS)
        if not files:
            raise DataError(f"{images} holds no images: expected images/{split}/NAME.jpg and labels/{split}/NAME.txt")
        annotated = []
        for path in files:
            text = folder / "labels" / split / path.relative_to(images).with_suffix(".txt")
            annotated.append(Annotated.of(path, _rows(text, path, names) if text.is_file() else []))
        super().__init__(names, annotated, transform=transform, truth=truth)


def _names(path: Path) -> tuple[str, ...]:
    if path.suffix.lower() not in (".yaml", ".yml"):
        return class_names(path)
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise DataError(f"{path} is no YAML ({error})") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(f"{path}: names must count the labels from 0 to {len(names) - 1}, got {sorted(names)[:12]}")
        names = [names[label] for label in range(len(names))]
    if not isinstance(names, list):
        raise DataError(f"{path} needs names, the classes by label: a list, or a mapping from label to name")
    return class_names([str(name) for name in names])


def _rows(path: Path, image: Path, names: Sequence[str]) -> list[tuple[Sequence[float], int, float | None, bool]]:
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        return []
    try:
        with Image.open(image) as opened:  # reads the head of the file only
            width, height = opened.size
    except Exception as error:
        raise DataError(f"{image} is no readable image ({type(error).__name__}: {error})") from error
    rows: list[tuple[Sequence[float], int, float | None, bool]] = []
    for number, line in enumerate(lines, start=1):
        try:
            label = int(line[0])
            cx, cy, w, h = (float(word) for word in line[1:])
        except (ValueError, IndexError):
            raise DataError(f"{path}, line {number}: expected 'class cx cy w h', got {' '.join(line)!r}") from None
        if not 0 <= label < len(names):
            raise DataError(
                f"{path}, line {number}: class {label} is not in the list of {len(names)} classes (0 to "
                f"{len(names) - 1})"
            )
        if not all(-0.01 <= value <= 1.01 for value in (cx, cy, w, h)):
            raise DataError(
                f"{path}, line {number}: numbers must be in units of the image, between 0 and 1, got {' '.join(line)!r}"
            )
        edges = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
        left, right = (min(max(edge, 0.0), width) for edge in edges[::2])
        top, bottom = (min(max(edge, 0.0), height) for edge in edges[1::2])
        if right > left and bottom > top:
            rows.append(((left, top, right, bottom), label, None, False))
    return rows
