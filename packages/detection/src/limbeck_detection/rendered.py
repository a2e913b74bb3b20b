"""A data set that the package draws itself, in COCO's format: coloured shapes among clutter, partly hidden.

    python -m limbeck_detection.rendered FOLDER --train 480 --val 120 --size 96 --seed 0

The same seed draws the same files. Boxes surround what is visible of a shape, as COCO's do, and ``area`` counts its
visible pixels; a shape of which less than 40 % is visible is left out of the picture.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from limbeck_core.errors import ConfigError

CLASSES = ("circle", "square", "triangle")
_HUES = ((225, 70, 60), (60, 175, 80), (70, 100, 225))
_VISIBLE = 0.4  # the least share of a shape that must be seen


def render(folder: str | Path, *, train: int = 480, val: int = 120, size: int = 96, seed: int = 0) -> Path:
    """Draw training and validation images and their annotation files.

    Args:
        folder: Receives ``train/``, ``val/``, ``train.json`` and ``val.json``.
        train: Number of training images.
        val: Number of validation images.
        size: Height and width in pixels, 32 or more.
        seed: Draws the same files each time; images of the two parts never share random numbers.

    Returns:
        The folder.

    Raises:
        ConfigError: if a number is out of range.
    """
    if train < 1 or val < 1 or size < 32 or seed < 0:
        raise ConfigError(
            f"rendering needs at least one image of each part, a size of 32 or more and a seed of 0 or more, got "
            f"train={train}, val={val}, size={size}, seed={seed}"
        )
    folder = Path(folder)
    for part, (name, count) in enumerate((("train", train), ("val", val))):
        (folder / name).mkdir(parents=True, exist_ok=True)
        images: list[dict[str, Any]] = []
        marks: list[dict[str, Any]] = []
        for number in range(count):
            picture, found = draw(np.random.default_rng([seed, part, number]), size)
            file = f"{number:05d}.png"
            picture.save(folder / name / file)
            images.append({"id": number + 1, "file_name": file, "width": size, "height": size})
            for mark in found:
                marks.append({"id": len(marks) + 1, "image_id": number + 1, "iscrowd": 0, **mark})
        categories = [{"id": label + 1, "name": shape} for label, shape in enumerate(CLASSES)]
        content = {"images": images, "annotations": marks, "categories": categories}
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def draw(rng: np.random.Generator, size: int) -> tuple[Image.Image, list[dict[str, Any]]]:
    """Draw one image.

    Args:
        rng: Where random numbers come from.
        size: Height and width in pixels.

    Returns:
        The image, and ``category_id``, ``bbox`` (x, y, width, height in pixels) and ``area`` of each shape.
    """
    picture = Image.fromarray(_background(rng, size))
    pencil = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(3, 8))):
        _clutter(rng, pencil, size)
    owners = np.zeros((size, size), dtype=np.int64)
    shapes: list[tuple[int, int]] = []  # label and number of pixels of each, hidden ones included
    for _ in range(int(rng.integers(1, 5))):
        label = int(rng.integers(len(CLASSES)))
        mask = Image.new("1", (size, size))
        _shape(rng, ImageDraw.Draw(mask), label, size)
        pixels = np.asarray(mask)
        after = np.where(pixels, len(shapes) + 1, owners)
        if not _all_visible(after, [*shapes, (label, int(pixels.sum()))]):
            continue
        owners = after
        shapes.append((label, int(pixels.sum())))
        colour = np.clip(np.asarray(_HUES[label]) + rng.integers(-35, 36, 3), 0, 255)
        picture.paste(tuple(int(value) for value in colour), (0, 0), mask)
    noisy = np.asarray(picture).astype(np.float64) + rng.normal(0, 6, (size, size, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), _marks(owners, shapes)


def _background(rng: np.random.Generator, size: int) -> npt.NDArray[np.uint8]:
    corners = rng.integers(60, 200, (2, 2, 3)).astype(np.float64)
    across, down = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    top = corners[0, 0] * (1 - across[..., None]) + corners[0, 1] * across[..., None]
    bottom = corners[1, 0] * (1 - across[..., None]) + corners[1, 1] * across[..., None]
    return np.asarray(top * (1 - down[..., None]) + bottom * down[..., None]).astype(np.uint8)


def _clutter(rng: np.random.Generator, pencil: ImageDraw.ImageDraw, size: int) -> None:
    """A line or a small dot in any colour: neither has a class."""
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    x, y = (float(value) for value in rng.uniform(0, size, 2))
    if rng.random() < 0.6:
        angle, length = rng.uniform(0, math.pi), rng.uniform(0.2, 0.7) * size
        end = (x + length * math.cos(angle), y + length * math.sin(angle))
        pencil.line([(x, y), end], fill=colour, width=int(rng.integers(1, 4)))
    else:
        radius = float(rng.uniform(0.01, 0.035)) * size
        pencil.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def _shape(rng: np.random.Generator, pencil: ImageDraw.ImageDraw, label: int, size: int) -> None:
    width, height = (float(value) for value in rng.uniform(0.16, 0.5, 2) * size)
    left, top = float(rng.uniform(0, size - width)), float(rng.uniform(0, size - height))
    if CLASSES[label] == "circle":
        pencil.ellipse([left, top, left + width, top + height], fill=1)
    elif CLASSES[label] == "square":
        pencil.rectangle([left, top, left + width, top + height], fill=1)
    else:
        apex = left + float(rng.uniform(0.2, 0.8)) * width
        pencil.polygon([(apex, top), (left, top + height), (left + width, top + height)], fill=1)


def _all_visible(owners: npt.NDArray[np.int64], shapes: Sequence[tuple[int, int]]) -> bool:
    return all(int((owners == i).sum()) >= _VISIBLE * total for i, (_, total) in enumerate(shapes, start=1))


def _marks(owners: npt.NDArray[np.int64], shapes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    marks = []
    for number, (label, _) in enumerate(shapes, start=1):
        rows, columns = np.nonzero(owners == number)
        left, top = int(columns.min()), int(rows.min())
        box = [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]
        marks.append({"category_id": label + 1, "bbox": box, "area": len(rows)})
    return marks


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and draw; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m limbeck_detection.rendered", description="Draw a COCO data set.")
    parser.add_argument("folder", type=Path, help="receives train/, val/, train.json and val.json")
    parser.add_argument("--train", type=int, default=480, help="training images (default: 480)")
    parser.add_argument("--val", type=int, default=120, help="validation images (default: 120)")
    parser.add_argument("--size", type=int, default=96, help="height and width in pixels (default: 96)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        folder = render(options.folder, train=options.train, val=options.val, size=options.size, seed=options.seed)
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{folder}: {options.train} training and {options.val} validation images with {', '.join(CLASSES)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
