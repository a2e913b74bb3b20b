"""A data set that the package draws itself, in COCO's key point format: jointed figures of coloured discs over noise.

    python -m limbeck_pose.rendered FOLDER --train 1024 --val 256 --seed 0

Each image holds one figure: ten discs of ten colours, each a step from the one before it on a chain with random bends.
Two training files name the same images: ``train_full.json`` with every key point, for a teacher, and ``train.json`` as
annotators would leave it: three of the ten key points are never labelled, the others with probability 0.4. The same
seed draws the same files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from limbeck_core.errors import ConfigError
from limbeck_pose.keypoints import Layout

COUNT = 10
NEVER = (2, 5, 8)  # key points without any label in train.json
LABELLED = 0.4  # probability of a label of the others
LABELLED_POINTS = tuple(point for point in range(COUNT) if point not in NEVER)

CHAIN = Layout(
    count=COUNT,
    sigmas=(0.05,) * COUNT,
    pairs=(),
    parts={"chain": range(COUNT)},
    upper=tuple(range(5)),
    lower=tuple(range(5, COUNT)),
    links=tuple((joint, joint + 1) for joint in range(COUNT - 1)),
)
"""The ten key points of a drawn figure, along its chain."""

_COLOURS = cv2.cvtColor(
    np.array([[[18 * point, 200 + 55 * (point % 2), 255 - 60 * (point % 3)] for point in range(COUNT)]], np.uint8),
    cv2.COLOR_HSV2RGB,
)[0]


def render(folder: str | Path, *, train: int = 1024, val: int = 256, size: int = 64, seed: int = 0) -> Path:
    """Draw training and validation images and their annotation files.

    Args:
        folder: Receives ``train/``, ``val/``, ``train.json``, ``train_full.json`` and ``val.json``.
        train: Number of training images.
        val: Number of validation images.
        size: Height and width in pixels, 64 or more.
        seed: Draws the same files each time; images of the two parts never share random numbers.

    Returns:
        The folder.

    Raises:
        ConfigError: if a number is out of range.
    """
    if train < 1 or val < 1 or size < 64 or seed < 0:
        raise ConfigError(
            f"rendering needs at least one image of each part, a size of 64 or more and a seed of 0 or more, got "
            f"train={train}, val={val}, size={size}, seed={seed}"
        )
    folder = Path(folder)
    for part, (name, count) in enumerate((("train", train), ("val", val))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        images, full, sparse = [], [], []
        for number in range(count):
            rng = np.random.default_rng([seed, part, number])
            picture, points = draw(rng, size)
            file = f"{number:05d}.png"
            cv2.imwrite(str(folder / name / file), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            images.append({"id": number + 1, "file_name": file, "width": size, "height": size})
            seen = rng.random(COUNT) < LABELLED
            seen[list(NEVER)] = False
            full.append(_annotation(number + 1, points, np.ones(COUNT, bool)))
            sparse.append(_annotation(number + 1, points, seen))
        _write(folder / f"{name}.json", images, sparse if name == "train" else full)
        if name == "train":
            _write(folder / "train_full.json", images, full)
    return folder


def draw(rng: np.random.Generator, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Draw one figure.

    Args:
        rng: Where random numbers come from.
        size: Height and width in pixels.

    Returns:
        RGB bytes ``(size, size, 3)``, and the key points in pixels, ``(10, 2)``.
    """
    step, margin = size / 9, size / 16
    while True:
        angles = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.6, COUNT - 1))
        points = np.vstack([np.zeros(2), np.cumsum(step * np.stack([np.cos(angles), np.sin(angles)], 1), 0)])
        room = size - 2 * margin - np.ptp(points, axis=0)
        if (room > 0).all():
            points += margin - points.min(0) + rng.random(2) * room
            break
    canvas = rng.integers(40, 120, 3) * np.ones((size, size, 3))
    canvas = canvas.astype(np.uint8)
    for _ in range(4):  # discs in dull colours that belong to nothing
        middle = tuple(int(value) for value in rng.integers(0, size, 2))
        cv2.circle(canvas, middle, int(rng.integers(2, 5)), tuple(int(v) for v in rng.integers(60, 160, 3)), -1)
    sub = 16  # key points keep their fraction of a pixel
    fixed = np.rint(points * sub).astype(int)
    for point, centre in enumerate(fixed):
        colour = tuple(int(value) for value in _COLOURS[point])
        radius = max(2, size // 24)
        cv2.circle(canvas, tuple(map(int, centre)), radius * sub, colour, -1, cv2.LINE_AA, 4)
    noisy = canvas + rng.normal(0, 12, canvas.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), points


def _annotation(number: int, points: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_]) -> dict[str, Any]:
    low, extent = points.min(0), np.ptp(points, axis=0)
    x, y, width, height = (float(value) for value in (*(low - 4), *(extent + 8)))
    table = np.column_stack([np.round(points, 2) * seen[:, None], 2 * seen])
    return {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [x, y, width, height],
        "area": width * height,
        "num_keypoints": int(seen.sum()),
        "keypoints": table.ravel().tolist(),
    }


def _write(path: Path, images: list[Any], annotations: list[Any]) -> None:
    names = [f"joint{point}" for point in range(COUNT)]
    skeleton = [[start + 1, end + 1] for start, end in CHAIN.links]
    categories = [{"id": 1, "name": "figure", "keypoints": names, "skeleton": skeleton}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the data set that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=1024)
    parser.add_argument("--val", type=int, default=256)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        folder = render(options.folder, train=options.train, val=options.val, size=options.size, seed=options.seed)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.train + options.val} images in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
