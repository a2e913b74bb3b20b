"""Pictures of several modalities: which folder is which, and how they become SAM's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from monai.transforms import Lambdad, RandFlipd, Resized
from torch import Tensor
from torch.utils.data import Dataset

from limbeck_core.errors import ConfigError, closest
from limbeck_medical.data import SegmentationDataset, picture_preprocessing
from limbeck_medical.data.transforms import BOTH
from limbeck_medical.esp_medsam.model import MODALITIES

Normalization = Literal["imagenet", "released"]
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


class MultiModalDataset(Dataset[dict[str, Any]]):
    """One folder a modality, each in a layout of :class:`~limbeck_medical.data.SegmentationDataset`, one after another.

    A sample has ``modality`` (integer) beside that data set's fields.

    Args:
        root: Folder with one folder for each modality, of its name.
        modalities: All names, in the order of the model's queries and controllers.
        only: Names to read; the others' folders need not exist. Default: all.
        options: Further arguments of :class:`~limbeck_medical.data.SegmentationDataset`.

    Raises:
        ConfigError: if ``only`` names an unknown modality or none.
        DataError: as the data set of a folder.
    """

    classes = ("background", "foreground")

    def __init__(
        self,
        root: str | Path,
        *,
        modalities: Sequence[str] = MODALITIES,
        only: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        self.modalities = tuple(modalities)
        chosen = self.modalities if only is None else tuple(only)
        for name in chosen:
            if name not in self.modalities:
                raise ConfigError(f"only names the modality {name!r}: {closest(name, self.modalities)}")
        if not chosen:
            raise ConfigError(f"only names no modality: name some of {', '.join(self.modalities)}, or leave it out")
        self.parts = {name: SegmentationDataset(Path(root) / name, classes=self.classes, **options) for name in chosen}
        self._places = [(name, place) for name, part in self.parts.items() for place in range(len(part))]

    @property
    def num_classes(self) -> int:
        """Background and foreground: 2."""
        return len(self.classes)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> dict[str, Any]:
        name, place = self._places[position]
        sample = self.parts[name][place]
        number = self.modalities.index(name)
        # unique over modalities, and the same whichever of them are read
        return {**sample, "ids": sample["ids"] * len(self.modalities) + number, "modality": number}


def square_pictures(
    size: int = 1024,
    *,
    normalization: Normalization = "imagenet",
    label_values: Sequence[int] | None = (0, 255),
) -> list[Any]:
    """Load pictures and masks, make them three-channelled and square, and normalise the pictures.

    Args:
        size: Side in pixels; pictures are resized linearly, masks by nearest neighbour, whatever their proportions.
        normalization: ``"imagenet"``: SAM's, ``(x - mean) / std`` of values from 0 to 255. ``"released"``: what the
            public loader of ESP-MedSAM does by a slip and its published weights expect, ``(x - mean) / mean``. Teacher
            and student must have the same.
        label_values: Values of background and foreground in the mask files; ``None`` for 0 and 1.

    Raises:
        ValueError: if ``normalization`` is neither.
    """
    if normalization not in get_args(Normalization):
        raise ValueError(f"normalization must be one of {', '.join(get_args(Normalization))}, got {normalization!r}")
    normalize = _imagenet if normalization == "imagenet" else _released
    return [
        *picture_preprocessing(intensity="none", label_values=label_values),
        Lambdad(("inputs",), three_channels),
        Resized(BOTH, (size, size), mode=("bilinear", "nearest"), allow_missing_keys=True),
        Lambdad(("inputs",), normalize),
    ]


def random_flip(probability: float = 0.1) -> list[Any]:
    """Flip picture and mask together, left to right.

    Args:
        probability: How often. Paper's code: 0.1.
    """
    return [RandFlipd(BOTH, prob=probability, spatial_axis=0, allow_missing_keys=True)]


def three_channels(image: Tensor) -> Tensor:
    """Repeat a grey picture, and leave an opacity channel out: ``(1 | 2 | 3 | 4, ...)`` to ``(3, ...)``."""
    return image[:1].repeat(3, 1, 1) if len(image) < 3 else image[:3]


def _imagenet(image: Tensor) -> Tensor:
    return (image - _column(_MEAN)) / _column(_STD)


def _released(image: Tensor) -> Tensor:
    return (image - _column(_MEAN)) / _column(_MEAN)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values)[:, None, None]
