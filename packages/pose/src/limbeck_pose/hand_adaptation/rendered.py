"""Hands that the package draws: a labelled domain, and another one of darker gloves before busy, noisy backgrounds.

    python -m limbeck_pose.hand_adaptation.rendered FOLDER --train 240 --val 96 --seed 0

``FOLDER/source/train`` and ``FOLDER/target/{train,val,test}`` have ``hands.json``, ``images/`` and ``masks/``. Labels
of ``target/train`` are written like the others; adaptation never reads them. The same seed draws the same files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from limbeck_core.errors import ConfigError
from limbeck_pose.data.crops import Array
from limbeck_pose.hand_adaptation.data import FILE, HAND
from limbeck_pose.hand_adaptation.views import Image

# of each finger, thumb first: direction in degrees from straight up, and lengths of its four bones over the hand's size
_FINGERS = (
    (-58, (0.26, 0.16, 0.13, 0.10)),
    (-20, (0.44, 0.16, 0.11, 0.09)),
    (-3, (0.45, 0.18, 0.12, 0.09)),
    (13, (0.43, 0.16, 0.11, 0.09)),
    (30, (0.40, 0.12, 0.09, 0.08)),
)
_PARTS = (("source", "train"), ("target", "train"), ("target", "val"), ("target", "test"))


def render(folder: str | Path, *, train: int = 240, val: int = 96, size: int = 64, seed: int = 0) -> Path:
    """Draw both domains.

    Args:
        folder: Receives the parts.
        train: Number of hands of each training part.
        val: Number of hands of each other part.
        size: Height and width in pixels, 48 or more.
        seed: Draws the same files each time; parts never share random numbers.

    Returns:
        The folder.

    Raises:
        ConfigError: if a number is out of range.
    """
    if train < 1 or val < 1 or size < 48 or seed < 0:
        raise ConfigError(
            "rendering needs at least one hand of each part, a size of 48 or more and a seed of 0 or more, got "
            f"train={train}, val={val}, size={size}, seed={seed}"
        )
    folder = Path(folder)
    for part, (domain, name) in enumerate(_PARTS):
        place = folder / domain / name
        for below in ("images", "masks"):
            (place / below).mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for number in range(train if name == "train" else val):
            rng = np.random.default_rng([seed, part, number])
            picture, mask, points = draw(rng, size, shifted=domain == "target")
            file = f"{number:05d}.png"
            cv2.imwrite(str(place / "images" / file), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            cv2.imwrite(str(place / "masks" / file), mask)
            images.append({"id": number + 1, "file_name": file, "width": size, "height": size})
            table = np.column_stack([np.round(points, 2), np.full(len(points), 2)])
            annotations.append(
                {
                    "id": number + 1,
                    "image_id": number + 1,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [0, 0, size, size],
                    "area": int((mask > 127).sum()),
                    "num_keypoints": len(points),
                    "keypoints": table.ravel().tolist(),
                }
            )
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "hand"}]}
        (place / FILE).write_text(json.dumps(content), encoding="utf-8")
    return folder


def draw(rng: np.random.Generator, size: int, *, shifted: bool) -> tuple[Image, Image, Array]:
    """Draw one hand.

    Args:
        rng: Where random numbers come from.
        size: Height and width in pixels.
        shifted: Draw it as in the target domain.

    Returns:
        RGB bytes ``(size, size, 3)``, the mask as bytes of 0 or 255 ``(size, size)``, and key points in pixels,
        ``(21, 2)``.
    """
    points = _skeleton(rng, size)
    canvas = _background(rng, size, shifted)
    skin = rng.uniform((190, 140, 110), (235, 185, 150))
    if shifted:
        skin = skin * rng.uniform(0.65, 0.85) + rng.uniform((0, 0, 20), (10, 20, 70))
    mask = np.zeros((size, size), np.uint8)
    pixels = np.rint(points * 16).astype(np.int32)
    unit = size / 64
    palm = pixels[[0, 1, 5, 9, 13, 17]]
    for layer, shade in ((canvas, 0.86), (mask, None)):
        colour = (255, 255, 255) if shade is None else tuple(float(value) for value in skin * shade)
        cv2.fillPoly(layer, [palm], colour, cv2.LINE_AA, 4)
    for finger in range(5):
        width = (7 if finger == 0 else 5) * unit
        tint = 1.0 + 0.05 * (finger % 2) - 0.03 * finger
        for start, end in HAND.links[4 * finger : 4 * finger + 4]:
            thick = max(2, round(width))
            joint = (end - 1) % 4
            colour = tuple(float(value) for value in np.clip(skin * (tint - 0.05 * joint), 0, 255))
            cv2.line(canvas, tuple(pixels[start]), tuple(pixels[end]), colour, thick, cv2.LINE_AA, 4)
            cv2.line(mask, tuple(pixels[start]), tuple(pixels[end]), (255,), thick, cv2.LINE_AA, 4)
            width *= 0.88
        nail = tuple(float(value) for value in np.clip(skin * 1.12, 0, 255))
        cv2.circle(canvas, tuple(pixels[4 * finger + 4]), round(1.3 * unit * 16), nail, -1, cv2.LINE_AA, 4)
    if shifted:
        canvas = np.asarray(cv2.GaussianBlur(canvas, (3, 3), 0.8))
    noisy = canvas + rng.normal(0, 10 if shifted else 5, canvas.shape)
    hand = np.where(mask > 127, 255, 0).astype(np.uint8)
    return np.clip(noisy, 0, 255).astype(np.uint8), hand, points


def _skeleton(rng: np.random.Generator, size: int) -> Array:
    while True:
        length = size * rng.uniform(0.72, 0.95)
        turn = rng.uniform(-35, 35)
        spread, curl = rng.uniform(0.7, 1.15), rng.uniform(-12, 16, 5)
        points = [np.zeros(2)]
        for finger, (angle, bones) in enumerate(_FINGERS):
            at, heading = np.zeros(2), turn + angle * spread
            for joint, bone in enumerate(bones):
                direction = np.deg2rad(heading)
                at = at + bone * length * np.array([np.sin(direction), -np.cos(direction)])
                points.append(at)
                heading += curl[finger] + rng.normal(0, 3) if joint else rng.normal(0, 4)
        table = np.array(points)
        room = size - 8 - np.ptp(table, axis=0)
        if (room > 0).all():
            placed: Array = table - table.min(0) + 4 + rng.random(2) * room
            return placed


def _background(rng: np.random.Generator, size: int, shifted: bool) -> Image:
    start, end = rng.uniform(60, 200, 3), rng.uniform(60, 200, 3)
    canvas = (start + (end - start) * np.linspace(0, 1, size)[:, None, None]) * np.ones((size, size, 3))
    if shifted:
        canvas *= 0.7
        for _ in range(6):
            first, second = (tuple(int(v) for v in rng.integers(0, size, 2)) for _ in range(2))
            colour = tuple(float(v) for v in rng.uniform(20, 170, 3))
            cv2.line(canvas, first, second, colour, int(rng.integers(1, 5)), cv2.LINE_AA)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the data set that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=240)
    parser.add_argument("--val", type=int, default=96)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        folder = render(options.folder, train=options.train, val=options.val, size=options.size, seed=options.seed)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{2 * (options.train + options.val)} images in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
