"""Images in folders: one folder for each class, or a folder without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from limbeck_core.errors import DataError, closest
from limbeck_vision.data.dataset import ImageDataset, Labels, Transform

EXTENSIONS = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_LISTED = 10  # damaged files named in one message


class _ImageFiles(ImageDataset):
    """Images read from files when they are asked for."""

    def __init__(
        self,
        paths: Sequence[Path],
        classes: Sequence[str],
        targets: Labels | None,
        *,
        transform: Transform | Mapping[str, Any] | None,
        verify: bool,
    ) -> None:
        super().__init__(classes, targets, length=len(paths), transform=transform)
        self.paths = tuple(paths)
        if verify and (damaged := self.damaged()):
            listed = "; ".join(damaged[:_LISTED])
            more = f"; and {len(damaged) - _LISTED} more" if len(damaged) > _LISTED else ""
            raise DataError(
                f"{len(damaged)} of {len(paths)} images cannot be read: {listed}{more}. Copy them again or remove them"
            )

    def damaged(self) -> list[str]:
        """Decode every image; return the path and the reason for each that cannot be read."""
        problems = []
        for path in self.paths:
            try:
                read_image(path)
            except DataError as error:
                problems.append(str(error))
        return problems

    def image(self, position: int) -> Tensor:
        """Return one image before the transform, float ``(3, H, W)`` in [0, 1]."""
        return read_image(self.paths[position])


def read_image(path: Path) -> Tensor:
    """Decode an image file into a float tensor ``(3, H, W)`` in [0, 1].

    Raises:
        DataError: if the file is missing or damaged, with its path.
    """
    try:
        with Image.open(path) as image:
            pixels: Tensor = pil_to_tensor(image.convert("RGB"))
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, DecompressionBombError and others
        raise DataError(f"{path} is no readable image ({type(error).__name__}: {error})") from error
    return pixels.float() / 255


class ImageFolder(_ImageFiles):
    """Images sorted into one folder for each class, as ImageNet's are: ``root/CLASS/**/IMAGE``.

    Args:
        root: The folder of class folders.
        classes: Names of the classes in the order of their labels, or a text file with one name a line. Default: the
            folders in alphabetical order. A name without images keeps its label (see ``absent``).
        transform: See :class:`~limbeck_vision.data.dataset.ImageDataset`; images of several sizes need one that crops,
            such as ``center_crop``.
        verify: Decode every image at once and name all that are damaged, instead of failing at the first one met.

    Raises:
        DataError: if the folder or the list is missing or empty, a folder is not in the list, or, with ``verify``,
            images are damaged. A damaged image met later raises it with its path.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        classes: Sequence[str] | str | Path | None = None,
        transform: Transform | Mapping[str, Any] | None = None,
        verify: bool = False,
    ) -> None:
        root = _existing(root)
        folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        names = folders if classes is None else _class_names(classes)
        unknown = [folder for folder in folders if folder not in set(names)]
        if unknown:
            raise DataError(
                f"{root} has {len(unknown)} folders that the list of {len(names)} classes lacks, the first is "
                f"{unknown[0]!r} ({closest(unknown[0], names)}): add them to the list, or move them elsewhere"
            )
        paths, targets = [], []
        for label, name in enumerate(names):
            found = _images_under(root / name)
            paths += found
            targets += [label] * len(found)
        if not paths:
            raise DataError(
                f"{root} holds no images: expected {root}/CLASS/IMAGE with the extensions "
                f"{', '.join(sorted(EXTENSIONS))}, got the folders {folders[:_LISTED] or 'none'}"
            )
        super().__init__(paths, names, np.asarray(targets, dtype=np.int64), transform=transform, verify=verify)
        self.absent = tuple(name for name, count in zip(names, self.class_counts, strict=True) if not count)


class Unlabelled(_ImageFiles):
    """Images without labels, anywhere under a folder; samples have no ``targets``.

    Args:
        root: The folder.
        transform: See :class:`ImageFolder`.
        verify: See :class:`ImageFolder`.

    Raises:
        DataError: if the folder is missing or holds no images, or, with ``verify``, images are damaged.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        transform: Transform | Mapping[str, Any] | None = None,
        verify: bool = False,
    ) -> None:
        root = _existing(root)
        paths = _images_under(root)
        if not paths:
            raise DataError(f"{root} holds no images with the extensions {', '.join(sorted(EXTENSIONS))}")
        super().__init__(paths, (), None, transform=transform, verify=verify)


def _existing(root: str | Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        folders = [entry.name for entry in root.parent.iterdir() if entry.is_dir()] if root.parent.is_dir() else []
        raise DataError(f"there is no folder {root}; of {root.parent}, {closest(root.name, sorted(folders))}")
    return root


def _images_under(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())


def _class_names(classes: Sequence[str] | str | Path) -> list[str]:
    if isinstance(classes, (str, Path)):
        path = Path(classes)
        if not path.is_file():
            raise DataError(f"there is no list of classes {path}: expected a text file with one name a line")
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        names = list(classes)
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated or not names:
        raise DataError(f"the list of classes must name each class once, got {repeated or 'an empty list'}")
    return names
