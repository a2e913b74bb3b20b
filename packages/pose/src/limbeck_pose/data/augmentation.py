"""RTMPose's augmentation: mirrored, turned, scaled and moved people, half bodies, colours, blur, a hole.

Jiang et al., arXiv:2303.07399, section 3.3 and the released configs. Random numbers come from NumPy's global generator,
which the engine seeds for each sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from limbeck_core.checks import check_between, check_positive
from limbeck_pose.data.crops import Array, Crop
from limbeck_pose.keypoints import Layout

Image = npt.NDArray[np.uint8]
_HSV_STEPS = (5, 30, 30)  # largest change of hue (of 180), saturation and value (of 255), as YOLOX draws them
_HALF_PADDING = 1.5


@dataclass(frozen=True)
class Augmentation:
    """How a person's crop is drawn. The defaults are those of the first phase of training.

    Args:
        mirror: Probability of a mirrored image.
        half_body: Probability of a crop around one half of the body, where enough of it is labelled.
        shift: Largest shift in sides of the crop; drawn with probability 0.3.
        scale: Smallest and largest factor on the size.
        rotation: Largest rotation in degrees; drawn with probability 0.6.
        blur: Probability of each of two blurs, by mean and by median.
        hole: Probability of a black hole of 20 to 40 % of both sides.
        colours: Change hue, saturation and value at random.

    Raises:
        ValueError: if a probability lies outside of 0 to 1 or a scale is not above 0.
    """

    mirror: float = 0.5
    half_body: float = 0.3
    shift: float = 0.16
    scale: tuple[float, float] = (0.6, 1.4)
    rotation: float = 80.0
    blur: float = 0.1
    hole: float = 1.0
    colours: bool = True

    def __post_init__(self) -> None:
        for name in ("mirror", "half_body", "blur", "hole"):
            check_between(getattr(self, name), name, 0.0, 1.0)
        check_positive(self.scale[0], "scale")
        check_positive(self.scale[1], "scale")

    def crop(self, crop: Crop, points: Array, visible: Array, layout: Layout) -> Crop:
        """Return the rectangle that is cut out.

        Args:
            crop: The rectangle around the person.
            points: Key points in pixels of the image, ``(K, 2)``.
            visible: Above 0 where labelled, ``(K,)``.
            layout: Which points these are.
        """
        crop = self._half(crop, points, visible, layout)
        if np.random.rand() < 0.3:
            move = np.clip(np.random.randn(2) / 2, -1, 1) * self.shift * np.array(crop.size)
            crop = replace(crop, center=(crop.center[0] + move[0], crop.center[1] + move[1]))
        low, high = self.scale
        factor = low + (high - low) * (np.clip(np.random.randn() / 2, -1, 1) + 1) / 2
        crop = replace(crop, size=(crop.size[0] * factor, crop.size[1] * factor))
        if np.random.rand() < 0.6:
            crop = replace(crop, rotation=float(np.clip(np.random.randn() / 2, -1, 1) * self.rotation))
        if np.random.rand() < self.mirror:
            center = (crop.image_width - 1 - crop.center[0], crop.center[1])
            crop = replace(crop, mirrored=True, center=center)
        return crop

    def _half(self, crop: Crop, points: Array, visible: Array, layout: Layout) -> Crop:
        if (visible > 0).sum() < 9 or np.random.rand() > self.half_body:
            return crop
        upper = [point for point in layout.upper if visible[point] > 0]
        lower = [point for point in layout.lower if visible[point] > 0]
        prefer_upper = np.random.rand() < 0.7
        halves = [half for half in ((upper, lower) if prefer_upper else (lower, upper)) if len(half) >= 3]
        if not halves:
            return crop
        chosen = points[halves[0]]
        width, height = np.ptp(chosen, axis=0) * _HALF_PADDING
        if min(width, height) <= 0:
            return crop
        center = chosen.mean(0)
        return replace(crop, center=(float(center[0]), float(center[1]))).sized(float(width), float(height))

    def paint(self, image: Image) -> Image:
        """Return a crop ``(H, W, 3)``, RGB bytes, with other colours, blurred and with a hole, as drawn."""
        if self.colours:
            image = _shift_colours(image)
        if np.random.rand() < self.blur:
            size = int(np.random.choice((3, 5, 7)))
            image = cv2.blur(image, (size, size))  # type: ignore[assignment]
        if np.random.rand() < self.blur:
            image = cv2.medianBlur(image, int(np.random.choice((3, 5, 7))))  # type: ignore[assignment]
        if np.random.rand() < self.hole:
            height, width = image.shape[:2]
            rows, columns = (int(side * np.random.uniform(0.2, 0.4)) for side in (height, width))
            top, left = np.random.randint(0, height - rows + 1), np.random.randint(0, width - columns + 1)
            image = image.copy()
            image[top : top + rows, left : left + columns] = 0
        return image


FINE = Augmentation(shift=0.0, scale=(0.75, 1.25), rotation=60.0, hole=0.5)
"""The second phase of training, its last 30 epochs: milder geometry, a hole in half of the crops."""


def _shift_colours(image: Image) -> Image:
    gains = np.random.uniform(-1, 1, 3) * _HSV_STEPS * np.random.randint(0, 2, 3)
    steps = gains.astype(np.int16)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int16)
    hsv[..., 0] = (hsv[..., 0] + steps[0]) % 180
    hsv[..., 1:] = np.clip(hsv[..., 1:] + steps[1:], 0, 255)
    changed: Image = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)  # type: ignore[assignment]
    return changed
