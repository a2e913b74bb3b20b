"""From a person's box in an image to a crop of fixed size, and back: one similarity transform."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from limbeck_core.errors import DataError

Array = npt.NDArray[np.float64]
PADDING = 1.25  # side of the crop over the side of the person's box


@dataclass(frozen=True)
class Crop:
    """A rectangle in an image, turned and moved, that becomes a crop.

    Args:
        center: x and y in pixels of the image.
        size: Width and height in pixels of the image; their ratio is the crop's.
        output: Height and width of the crop in pixels.
        rotation: Degrees by which the rectangle is turned, clockwise as seen in the image.
        mirrored: The image was mirrored before; ``center`` is in the mirrored image.
        image_width: Width of the image in pixels, needed to mirror back.
    """

    center: tuple[float, float]
    size: tuple[float, float]
    output: tuple[int, int]
    rotation: float = 0.0
    mirrored: bool = False
    image_width: int = 0

    @classmethod
    def around(cls, box: Array, output: tuple[int, int], *, padding: float = PADDING, image_width: int = 0) -> Crop:
        """Return the smallest rectangle of the crop's shape that holds a padded box.

        Args:
            box: x, y, width and height in pixels of the image.
            output: Height and width of the crop.
            padding: Side of the rectangle over the side of the box.
            image_width: Width of the image, for mirroring.

        Raises:
            DataError: if the box has no area or is not finite.
        """
        x, y, width, height = (float(value) for value in box)
        if not (np.isfinite(box).all() and width > 0 and height > 0):
            raise DataError(f"a person's box must have a finite positive width and height, got {[x, y, width, height]}")
        return cls((x + width / 2, y + height / 2), (1.0, 1.0), output, image_width=image_width).sized(
            width * padding, height * padding
        )

    def sized(self, width: float, height: float) -> Crop:
        """Return one with room for ``width`` and ``height``, in the crop's own proportions."""
        ratio = self.output[1] / self.output[0]
        return replace(self, size=(max(width, height * ratio), max(height, width / ratio)))

    @property
    def matrix(self) -> Array:
        """The affine map from pixels of the image to pixels of the crop, ``(2, 3)``."""
        height, width = self.output
        scale = width / self.size[0]
        angle = np.deg2rad(self.rotation)
        linear = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        shift = np.array([width / 2, height / 2]) - linear @ np.array(self.center)
        affine = np.column_stack([linear, shift])
        if self.mirrored:
            affine[:, 2] += affine[:, 0] * (self.image_width - 1)
            affine[:, 0] *= -1
        return affine

    def cut(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the crop of an image ``(H, W, 3)``, black where it reaches over the border."""
        height, width = self.output
        cropped: npt.NDArray[np.uint8] = cv2.warpAffine(image, self.matrix, (width, height), flags=cv2.INTER_LINEAR)  # type: ignore[assignment]
        return cropped

    def apply(self, points: Array) -> Array:
        """Map points ``(..., 2)`` of the image to the crop."""
        matrix = self.matrix
        moved: Array = points @ matrix[:, :2].T + matrix[:, 2]
        return moved

    def undo(self, points: Array) -> Array:
        """Map points ``(..., 2)`` of the crop back to the image."""
        matrix = self.matrix
        back: Array = (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        return back
