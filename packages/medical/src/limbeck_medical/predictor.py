"""What ``limbeck predict`` reads and writes for segmentation: an image file in, a label map on the same grid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from limbeck_core.build import build
from limbeck_core.errors import ConfigError, DataError
from limbeck_medical.data.cases import stem
from limbeck_medical.data.transforms import volume_preprocessing
from limbeck_medical.geometry import labels_on_input_grid, write_labels

Chain = Sequence[Any] | Mapping[str, Any]


class VolumePredictor:
    """Read an image file, and write the predicted label map with the geometry of that file.

    Args:
        preprocess: Chain of transforms as for testing, or a config of it. Default:
            :func:`~limbeck_medical.data.volume_preprocessing`.
        out: Folder for the label maps, ``NAME.nii.gz`` for volumes and ``NAME.png`` for pictures; ``None`` writes
            nothing and describes only.
        classes: Names by label, the background first; without them classes are numbers.

    Raises:
        ConfigError: when a prediction is described, if the number of names is not that of the scores.
    """

    def __init__(
        self,
        preprocess: Chain | None = None,
        *,
        out: str | Path | None = "predictions",
        classes: Sequence[str] | None = None,
    ) -> None:
        found = volume_preprocessing() if preprocess is None else preprocess
        built = build(found) if isinstance(found, Mapping) else [build(transform) for transform in found]
        self.transform = Compose(list(built))
        self.out = None if out is None else Path(out)
        self.classes = None if classes is None else list(classes)
        self._read: dict[str, MetaTensor] = {}

    def read(self, source: str) -> dict[str, Tensor]:
        """Return the image as the model takes it, float32 ``(C, ...)``.

        Raises:
            DataError: if the file is missing or cannot be read.
        """
        if not Path(source).exists():
            raise DataError(f"there is no file {source}")
        try:
            image = self.transform({"inputs": source})["inputs"]
        except Exception as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise DataError(
                f"{source} cannot be read as an image ({type(cause).__name__}: {cause}): copy it again, or see whether "
                "the config's preprocessing fits it"
            ) from error
        self._read = {source: image}  # its metadata leads back to the file's grid
        return {"inputs": image.as_tensor().float()}

    def describe(self, source: str, output: Tensor) -> Mapping[str, Any]:
        """Write the label map and return its path and the size of each structure.

        Args:
            source: What was read last.
            output: Class scores ``(1, K, ...)``.
        """
        if self.classes is not None and len(self.classes) != output.shape[1]:
            raise ConfigError(
                f"VolumePredictor has {len(self.classes)} class names, the model scores {output.shape[1]} classes: "
                "give the names of the data set that it was trained on"
            )
        labels = labels_on_input_grid(output[0], self._read[source], self.transform)
        size = float(torch.as_tensor(labels.pixdim).prod())
        unit, scale = ("ml", 1000.0) if labels.ndim == 4 else ("mm2", 1.0)
        counts = torch.bincount(labels.as_tensor().flatten().long(), minlength=output.shape[1]).tolist()
        names = self.classes or [str(label) for label in range(output.shape[1])]
        sizes = {name: round(count * size / scale, 4) for name, count in zip(names[1:], counts[1:], strict=True)}
        found: dict[str, Any] = {"input": source, unit: sizes}
        if self.out is not None:
            found["labels"] = str(write_labels(labels, self.out / stem(Path(source))))
        return found
