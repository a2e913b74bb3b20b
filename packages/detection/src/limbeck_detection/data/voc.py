"""Boxes in the format of PASCAL VOC: one XML file for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from limbeck_core.errors import DataError
from limbeck_detection.data.dataset import (
    Annotated,
    DetectionDataset,
    Transform,
    class_names,
    label_by_name,
    read_text,
)

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")


class VocDetection(DetectionDataset):
    """Images with boxes in VOC's layout: ``Annotations/NAME.xml``, ``JPEGImages/NAME.jpg``, ``ImageSets/Main``.

    VOC counts pixels from 1 and includes the last one; here ``xmin`` and ``ymin`` become 0-based edges. Objects marked
    difficult are no targets and are ignored in evaluation (VOC's own protocol), unless ``difficult`` says otherwise.
    Ids count the images of the list.

    Args:
        root: Folder of the data set, such as ``VOCdevkit/VOC2012``.
        split: Name of the list ``ImageSets/Main/SPLIT.txt``; without that file, every XML file is read.
        classes: Names in the order of the labels, or a text file with one name a line. Default: every name in the XML
            files of the split, sorted; name them for a validation set, which may lack one.
        difficult: Learn difficult objects like others.
        transform: See :class:`~limbeck_detection.data.dataset.DetectionDataset`.
        truth: See :class:`~limbeck_detection.data.dataset.DetectionDataset`.

    Raises:
        DataError: if a folder or file is missing or no VOC annotation, or a class is not in ``classes``.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        classes: Sequence[str] | str | Path | None = None,
        difficult: bool = False,
        transform: Transform | Mapping[str, Any] | None = None,
        truth: bool = False,
    ) -> None:
        folder = Path(root)
        names = _names(folder, split)
        marks = [_read(folder / "Annotations" / f"{name}.xml") for name in names]
        found = sorted({mark[0] for rows in marks for mark in rows})
        if not found and classes is None:
            raise DataError(f"{folder} marks no object in the {len(names)} images of {split!r}: name the classes")
        known = tuple(found) if classes is None else class_names(classes)
        annotated = []
        for name, rows in zip(names, marks, strict=True):
            where = str(folder / "Annotations" / f"{name}.xml")
            annotated.append(
                Annotated.of(
                    _image(folder / "JPEGImages", name),
                    [
                        (box, label_by_name(known, label, where), None, hard and not difficult)
                        for label, box, hard in rows
                    ],
                )
            )
        super().__init__(known, annotated, transform=transform, truth=truth)


def _names(folder: Path, split: str) -> list[str]:
    listed = folder / "ImageSets" / "Main" / f"{split}.txt"
    if listed.is_file():
        # lists of one class have a second column
        names = [line.split()[0] for line in read_text(listed).splitlines() if line.strip()]
    else:
        names = sorted(path.stem for path in (folder / "Annotations").glob("*.xml"))
    if not names:
        raise DataError(
            f"{folder} is not in VOC's layout: expected Annotations/NAME.xml, JPEGImages/NAME.jpg and, with lists, "
            f"ImageSets/Main/{split}.txt"
        )
    return names


def _image(folder: Path, name: str) -> Path:
    for extension in _EXTENSIONS:
        if (folder / f"{name}{extension}").is_file():
            return folder / f"{name}{extension}"
    raise DataError(f"{folder} holds no image {name} with one of the extensions {', '.join(_EXTENSIONS)}")


def _read(path: Path) -> list[tuple[str, tuple[float, float, float, float], bool]]:
    try:
        tree = ElementTree.fromstring(read_text(path))
        rows = []
        for mark in tree.iter("object"):
            box = mark.find("bndbox")
            if box is None:
                raise ValueError("an object has no bndbox")
            left, top, right, bottom = (float(box.findtext(name, "")) for name in ("xmin", "ymin", "xmax", "ymax"))
            difficult = mark.findtext("difficult", "0").strip() == "1"
            if right >= left and bottom >= top:
                rows.append((mark.findtext("name", "").strip(), (left - 1, top - 1, right, bottom), difficult))
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path} is no VOC annotation ({error})") from error
    return rows
