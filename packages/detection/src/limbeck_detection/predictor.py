"""What ``limbeck predict`` reads and writes for detectors: image files in, boxes out, and pictures if asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from limbeck_core.errors import ConfigError
from limbeck_detection.data.dataset import as_float, read_image
from limbeck_detection.evaluation.pictures import draw_detections


class DetectionPredictor:
    """Read an image file; give the boxes of what is seen in it.

    Args:
        size: Height and width that the image is stretched to, as in training.
        classes: Names by label; without them classes are numbers.
        threshold: Detections with a lower score are left out.
        out: Folder for pictures of the image with its boxes, under the image's name; ``None`` draws none.

    Attributes:
        suffixes: Files that a folder stands for when it is given as an input.

    Raises:
        ConfigError: if ``size`` is below 1 or ``threshold`` is outside of [0, 1]; or, when a prediction is described,
            if a label has no name.
    """

    suffixes = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

    def __init__(
        self,
        size: int,
        *,
        classes: Sequence[str] | None = None,
        threshold: float = 0.5,
        out: str | Path | None = None,
    ) -> None:
        if size < 1 or not 0 <= threshold <= 1:
            raise ConfigError(
                f"DetectionPredictor takes a size of 1 or more and a threshold in [0, 1], got {size} and {threshold}"
            )
        self.size = size
        self.classes = None if classes is None else list(classes)
        self.threshold = threshold
        self.out = None if out is None else Path(out)

    def read(self, source: str) -> dict[str, Tensor]:
        """Return the image as float ``(3, size, size)`` in [0, 1], and its width and height in pixels.

        Raises:
            DataError: if the file is missing or damaged.
        """
        image = read_image(Path(source))
        sizes = torch.tensor([image.shape[-1], image.shape[-2]])
        return {"inputs": as_float(resize(image, [self.size, self.size], antialias=True)), "sizes": sizes}

    def describe(self, source: str, output: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Any]:
        """Return the file and its detections, best first: class, score, and box (x1, y1, x2, y2) in pixels."""
        kept = {name: value[output[0]["scores"] >= self.threshold].cpu() for name, value in output[0].items()}
        labels = [int(label) for label in kept["labels"]]
        if self.classes is not None and labels and max(labels) >= len(self.classes):
            raise ConfigError(
                f"DetectionPredictor has {len(self.classes)} class names, and the model found label {max(labels)}: "
                "give the names of the data set that it was trained on"
            )
        if self.out is not None:
            names = self.classes or [str(label) for label in range(max(labels, default=0) + 1)]
            picture = self.out / f"{Path(source).stem}.png"
            image = as_float(read_image(Path(source)))
            draw_detections([image], {"": [kept]}, picture, classes=names, threshold=self.threshold)
        found = [
            {
                "class": label if self.classes is None else self.classes[label],
                "score": round(float(score), 6),
                "box": [round(float(edge), 2) for edge in box],
            }
            for label, score, box in zip(labels, kept["scores"], kept["boxes"], strict=True)
        ]
        return {"input": source, "detections": found}
