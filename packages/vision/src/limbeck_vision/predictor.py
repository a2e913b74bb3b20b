"""What ``limbeck predict`` reads and writes for classifiers: image files in, class scores out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from limbeck_core.errors import ConfigError
from limbeck_vision.data.folders import EXTENSIONS, read_image


class ImagePredictor:
    """Read an image file; give the most probable classes.

    Args:
        size: Height and width that the image is resized to.
        classes: Names in the order of the scores; without them classes are numbers.
        top: How many classes are given, the most probable first.

    Attributes:
        suffixes: Files that a folder stands for when it is given as an input.

    Raises:
        ConfigError: if ``size`` or ``top`` is below 1; or, when a prediction is described, if the number of names is
            not that of the scores.
    """

    suffixes = tuple(sorted(EXTENSIONS))

    def __init__(self, size: int, *, classes: Sequence[str] | None = None, top: int = 5) -> None:
        if size < 1 or top < 1:
            raise ConfigError(f"size and top of ImagePredictor must be 1 or more, got {size} and {top}")
        self.size = size
        self.classes = None if classes is None else list(classes)
        self.top = top

    def read(self, source: str) -> dict[str, Tensor]:
        """Return the image as float ``(3, size, size)`` in [0, 1].

        Raises:
            DataError: if the file is missing or damaged.
        """
        return {"inputs": resize(read_image(Path(source)), [self.size, self.size], antialias=True)}

    def describe(self, source: str, output: Tensor) -> Mapping[str, Any]:
        """Return the file, and class and probability of the first ``top`` classes; ``output`` has shape ``(1, C)``."""
        probabilities = output.detach().float().softmax(1)[0]
        if self.classes is not None and len(self.classes) != len(probabilities):
            raise ConfigError(
                f"ImagePredictor has {len(self.classes)} class names, the model scores {len(probabilities)} classes: "
                "give the names of the data set that it was trained on"
            )
        values, indices = torch.topk(probabilities, min(self.top, len(probabilities)))
        names = [index if self.classes is None else self.classes[index] for index in indices.tolist()]
        ranked = [{"class": name, "probability": round(p, 6)} for name, p in zip(names, values.tolist(), strict=True)]
        return {"input": source, "classes": ranked}
