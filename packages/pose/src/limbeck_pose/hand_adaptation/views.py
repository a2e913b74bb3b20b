"""Views of a hand's crop: drawn once as geometry and paint, applied to images, key points and masks alike.

The "weak" augmentation of the released code of Ohkawa et al., arXiv:2203.08344. Random numbers come from NumPy's global
generator, which the engine seeds for each sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from limbeck_core.checks import check_between

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """A crop as one augmentation shows it.

    Args:
        image: RGB bytes, ``(H, W, 3)``.
        matrix: Affine map from pixels of the crop to pixels of the view, ``(2, 3)``.
        keep: False inside of the rectangles that were painted over, ``(H, W)``.
    """

    image: Image
    matrix: Array
    keep: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HandAugmentation:
    """How views are drawn; the defaults are the released code's.

    Args:
        mirror: Probability of a mirrored view. Key points keep their order: a mirrored hand is the other hand.
        rotation: Largest rotation in degrees.
        shift: Largest shift in sides of the crop.
        move: Probability of the rotation, and of the shift.
        blur: Probability of a blur of 3 or 5 pixels.
        paint: Probability of another brightness and contrast, and of another hue and saturation.
        holes: Probability of one to five rectangles of 5 to 20 % of the sides, in the image's mean colour.

    Raises:
        ValueError: if a probability lies outside of 0 to 1.
    """

    mirror: float = 0.3
    rotation: float = 45.0
    shift: float = 0.2
    move: float = 0.3
    blur: float = 0.3
    paint: float = 0.25
    holes: float = 0.5

    def __post_init__(self) -> None:
        for name in ("mirror", "move", "blur", "paint", "holes"):
            check_between(getattr(self, name), name, 0.0, 1.0)

    def draw(self, image: Image) -> View:
        """Return a view of a crop, RGB bytes ``(H, W, 3)``. Borders are filled by reflection."""
        height, width = image.shape[:2]
        matrix = np.eye(3)
        if np.random.rand() < self.mirror:
            matrix = np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]]) @ matrix
        if np.random.rand() < self.move:
            centre = ((width - 1) / 2, (height - 1) / 2)
            turn = cv2.getRotationMatrix2D(centre, float(np.random.uniform(-self.rotation, self.rotation)), 1.0)
            matrix = np.vstack([turn, [0, 0, 1]]) @ matrix
        if np.random.rand() < self.move:
            across, down = np.random.uniform(-self.shift, self.shift, 2)
            matrix = np.array([[1, 0, across * width], [0, 1, down * height], [0, 0, 1]]) @ matrix
        affine = matrix[:2]
        shown: Image = cv2.warpAffine(image, affine, (width, height), borderMode=cv2.BORDER_REFLECT_101)  # type: ignore[assignment]
        shown = self._painted(shown)
        keep = np.ones((height, width), dtype=bool)
        if np.random.rand() < self.holes:
            colour = shown.mean((0, 1)).astype(np.uint8)
            for _ in range(np.random.randint(1, 6)):
                rows, columns = (max(1, int(side * np.random.uniform(0.05, 0.2))) for side in (height, width))
                top, left = np.random.randint(0, height - rows + 1), np.random.randint(0, width - columns + 1)
                shown[top : top + rows, left : left + columns] = colour
                keep[top : top + rows, left : left + columns] = False
        return View(shown, affine, keep)

    def _painted(self, image: Image) -> Image:
        shown = image.astype(np.float32)
        if np.random.rand() < self.blur:
            size = int(np.random.choice((3, 5)))
            shown = np.asarray(cv2.blur(shown, (size, size)), np.float32)
        if np.random.rand() < self.paint:
            shown = (shown - 127) * np.random.uniform(0.7, 1.3) + 127 + np.random.uniform(-30, 30)
        if np.random.rand() < self.paint:
            hsv = cv2.cvtColor(np.clip(shown, 0, 255).astype(np.uint8), cv2.COLOR_RGB2HSV).astype(np.int16)
            hsv[..., 0] = (hsv[..., 0] + np.random.randint(-10, 11)) % 180
            hsv[..., 1] = np.clip(hsv[..., 1] + np.random.randint(-30, 31), 0, 255)
            shown = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
        painted: Image = np.clip(shown, 0, 255).astype(np.uint8)
        return painted


def move_points(points: Tensor, matrix: Tensor) -> Tensor:
    """Carry key points ``(N, K, 2)`` of crops into their views, by matrices ``(N, 2, 3)``."""
    matrix = matrix.to(points)
    return points @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2]


def move_masks(masks: Tensor, matrix: Tensor, keep: Tensor) -> Tensor:
    """Carry masks ``(N, 1, H, W)`` of crops into their views.

    Args:
        masks: Values from 0 to 1.
        matrix: Maps from crops to views, ``(N, 2, 3)``.
        keep: False where a view is painted over, ``(N, H, W)``; the mask is 0 there.
    """
    height, width = masks.shape[2:]
    matrix = matrix.to(masks)
    back = torch.linalg.inv(matrix[:, :, :2])
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=masks.dtype, device=masks.device),
        torch.arange(width, dtype=masks.dtype, device=masks.device),
        indexing="ij",
    )
    pixels = torch.stack([columns, rows], -1).flatten(0, 1)
    source = (pixels - matrix[:, None, :, 2]) @ back.transpose(1, 2)
    scale = masks.new_tensor([2 / (width - 1), 2 / (height - 1)])
    grid = (source * scale - 1).view(len(masks), height, width, 2)
    moved = grid_sample(masks, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    return moved * keep.unsqueeze(1).to(moved)


def inside(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Which key points ``(N, K, 2)`` lie in a view of so many rows and columns, ``(N, K)``."""
    height, width = size
    x, y = points.unbind(-1)
    return (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
