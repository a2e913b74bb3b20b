"""What ``limbeck predict`` reads and writes for poses: an image and a person's box in, key points out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck_core.build import build
from limbeck_core.errors import ConfigError, DataError, ShapeError
from limbeck_pose.data.crops import PADDING, Array, Crop
from limbeck_pose.data.people import read_image
from limbeck_pose.evaluation.metric import decode_output
from limbeck_pose.evaluation.pictures import draw_people, write_picture
from limbeck_pose.evaluation.similarity import instance_score
from limbeck_pose.heatmap import Heatmap
from limbeck_pose.keypoints import WHOLE_BODY, Layout
from limbeck_pose.simcc import SimCC

_MARK = "@"


class PersonPredictor:
    """Read an image and cut out a person; give key points in pixels of the image.

    An input is ``IMAGE@X,Y,WIDTH,HEIGHT``, a person's box in pixels of the image, or ``IMAGE`` alone, where the person
    is the whole image.

    Args:
        codec: Codec of the head, or its config.
        layout: Which key points the model has.
        padding: Side of the crop over the side of the box.
        out: Folder for pictures of the image with the key points, ``NAME_X_Y_WIDTH_HEIGHT.png``; ``None`` draws none.

    Raises:
        ConfigError: if ``padding`` is not above 0.
    """

    def __init__(
        self,
        codec: SimCC | Heatmap | Mapping[str, Any],
        *,
        layout: Layout = WHOLE_BODY,
        padding: float = PADDING,
        out: str | Path | None = None,
    ) -> None:
        if padding <= 0:
            raise ConfigError(f"padding of PersonPredictor must be above 0, got {padding}")
        self.codec: SimCC | Heatmap = build(codec) if isinstance(codec, Mapping) else codec
        self.layout = layout
        self.padding = padding
        self.out = None if out is None else Path(out)

    def read(self, source: str) -> dict[str, Tensor]:
        """Return the person's crop as RGB bytes ``(3, H, W)``.

        Raises:
            DataError: if the file is missing or damaged, or the box is none or has no part inside of the image.
        """
        _, image, box = self._look(source)
        cut = self._crop(box, image).cut(image)
        return {"inputs": torch.from_numpy(np.ascontiguousarray(cut.transpose(2, 0, 1)))}

    def describe(self, source: str, output: Any) -> Mapping[str, Any]:
        """Return box, score and key points (x, y in pixels of the image, and score) of the person.

        Args:
            source: The input.
            output: Scores of the model's head.

        Raises:
            ShapeError: if the model has another number of key points than the layout.
        """
        path, image, box = self._look(source)
        points, scores = decode_output(self.codec, output)
        if points.shape[1] != self.layout.count:
            raise ShapeError(
                f"the model has {points.shape[1]} key points, PersonPredictor's layout {self.layout.count}: give it "
                "the layout that the model was trained on"
            )
        found = self._crop(box, image).undo(points[0].double().numpy())
        score = scores[0].double().numpy()
        described: dict[str, Any] = {
            "input": source,
            "box": box.tolist(),
            "score": round(instance_score(1.0, score), 6),
            "keypoints": [
                [round(float(x), 3), round(float(y), 3), round(float(s), 6)]
                for (x, y), s in zip(found, score, strict=True)
            ],
        }
        if self.out is not None:
            picture = self.out / f"{path.stem}_{'_'.join(f'{value:g}' for value in box)}.png"
            write_picture(draw_people(image, [(found, score)], self.layout), picture)
            described["picture"] = str(picture)
        return described

    def _look(self, source: str) -> tuple[Path, np.ndarray[Any, np.dtype[np.uint8]], Array]:
        # a name may hold the mark itself
        whole = Path(source)
        name, mark, numbers = source.rpartition(_MARK)
        path = whole if whole.is_file() or not mark else Path(name)
        image = read_image(path)
        height, width = image.shape[:2]
        if path == whole:
            return path, image, np.array([0.0, 0.0, width, height])
        try:
            box = np.array([float(value) for value in numbers.split(",")])
        except ValueError:
            box = np.array([])
        if len(box) != 4 or not np.isfinite(box).all() or min(box[2:]) <= 0:
            raise DataError(f"{source}: a person's box is X,Y,WIDTH,HEIGHT with sides above 0, got {numbers!r}")
        if box[0] + box[2] <= 0 or box[1] + box[3] <= 0 or box[0] >= width or box[1] >= height:
            raise DataError(f"{source}: no part of the box lies inside of the image of {width} by {height} pixels")
        return path, image, box

    def _crop(self, box: Array, image: np.ndarray[Any, Any]) -> Crop:
        return Crop.around(box, self.codec.input_size, padding=self.padding, image_width=image.shape[1])
