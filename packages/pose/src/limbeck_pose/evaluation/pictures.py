"""Skeletons drawn on images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from limbeck_core.errors import DataError
from limbeck_pose.keypoints import Layout

# red, green, blue of each part, in the order of a layout's parts
_COLOURS = ((255, 128, 0), (0, 200, 255), (255, 255, 255), (80, 255, 80), (255, 80, 200))


def draw_people(
    image: npt.NDArray[np.uint8],
    people: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
    layout: Layout,
    *,
    least_score: float = 0.2,
) -> npt.NDArray[np.uint8]:
    """Return a copy of an image with people's key points and the lines between them.

    Args:
        image: RGB bytes, ``(H, W, 3)``.
        people: Key points in pixels ``(K, 2)`` and scores ``(K,)`` of each person.
        layout: Which key points these are.
        least_score: Points below this score, and lines to them, are left out.
    """
    drawn: npt.NDArray[np.uint8] = image.copy()
    unit = max(1, round(max(image.shape[:2]) / 400))
    colour_of = [_COLOURS[number % len(_COLOURS)] for number, part in enumerate(layout.parts.values()) for _ in part]
    for points, scores in people:
        shown = scores >= least_score
        pixels = np.rint(points).astype(int)
        for start, end in layout.links:
            if shown[start] and shown[end]:
                cv2.line(drawn, tuple(pixels[start]), tuple(pixels[end]), colour_of[end], unit, cv2.LINE_AA)
        for index in np.flatnonzero(shown):
            cv2.circle(drawn, tuple(pixels[index]), unit + 1, colour_of[index], -1, cv2.LINE_AA)
    return drawn


def write_picture(image: npt.NDArray[np.uint8], path: str | Path) -> None:
    """Write RGB bytes ``(H, W, 3)`` as a PNG or JPEG.

    Raises:
        DataError: if the file cannot be written.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise DataError(f"{path} cannot be written: is the folder writable, and the ending .png or .jpg?")
