"""A data set that the package draws itself, in EchoNet-Dynamic's layout: a beating chamber that swings inside a sector.

    python -m limbeck_audiovideo.rendered_video FOLDER --train 512 --test 256 --seed 0

Grey clips as ultrasound gives them: a black surround, a sector of speckle, and in it the bright wall of a chamber that
beats at a random phase. Two things about a clip can be asked:

- ``shape`` (3 classes): a round wall, a square one, or a round one with a wall across. Every single frame shows it.
- ``motion`` (4 classes): the chamber swings to the left, right, up or down. One frame says nothing of it. All frames
  without their order tell the axis, but not which way: 50 % at best.

``Videos/*.avi`` holds the clips, ``FileList.csv`` a row for each: ``FileName``, ``Split`` (``TRAIN`` or ``TEST``),
``motion`` and ``shape``. The same seed draws the same clips.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from limbeck_audiovideo.video import write_video
from limbeck_core.errors import ConfigError, LimbeckError

MOTIONS = ("left", "right", "up", "down")
SHAPES = ("round", "square", "septum")
FRAMES, RATE = 12, 25.0  # of a file; a second
_STEPS = {"left": (0.0, -1.0), "right": (0.0, 1.0), "up": (-1.0, 0.0), "down": (1.0, 0.0)}


def render_video(
    folder: str | Path, *, train: int = 512, test: int = 256, size: int = 32, frames: int = FRAMES, seed: int = 0
) -> Path:
    """Draw clips and their table.

    Args:
        folder: Receives ``Videos/`` and ``FileList.csv``.
        train: Number of training clips.
        test: Number of test clips.
        size: Height and width in pixels, 16 or more.
        frames: Frames of a clip, 2 or more.
        seed: Draws the same clips each time; those of the two parts never share random numbers.

    Returns:
        The folder.

    Raises:
        ConfigError: if a number is out of range.
    """
    if train < 1 or test < 1 or size < 16 or frames < 2 or seed < 0:
        raise ConfigError(
            "rendering needs a clip of each part, a size of 16 or more, 2 frames or more and a seed of 0 or more, got "
            f"train={train}, test={test}, size={size}, frames={frames}, seed={seed}"
        )
    folder = Path(folder)
    (folder / "Videos").mkdir(parents=True, exist_ok=True)
    rows = []
    for part, (split, count) in enumerate((("TRAIN", train), ("TEST", test))):
        for number in range(count):
            # every combination of the two comes as often as any other, whatever the count
            motion = MOTIONS[number % len(MOTIONS)]
            shape = SHAPES[number // len(MOTIONS) % len(SHAPES)]
            clip = draw_clip(np.random.default_rng([seed, part, number]), motion, shape, size=size, frames=frames)
            name = f"{split.lower()}{number:05d}"
            write_video(folder / "Videos" / f"{name}.avi", torch.from_numpy(clip)[:, None], RATE, codec="mjpeg")
            rows.append({"FileName": name, "Split": split, "motion": motion, "shape": shape})
    with (folder / "FileList.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def draw_clip(
    rng: np.random.Generator, motion: str, shape: str, *, size: int = 32, frames: int = FRAMES
) -> npt.NDArray[np.uint8]:
    """Draw one clip.

    Args:
        rng: Where random numbers come from.
        motion: One of ``MOTIONS``.
        shape: One of ``SHAPES``.
        size: Height and width in pixels.
        frames: Number of frames.

    Returns:
        Bytes, ``(frames, size, size)``.

    Raises:
        ConfigError: if motion or shape is unknown.
    """
    if motion not in MOTIONS or shape not in SHAPES:
        raise ConfigError(f"motion must be one of {MOTIONS} and shape one of {SHAPES}, got {motion!r} and {shape!r}")
    y, x = np.mgrid[:size, :size] / size - 0.5  # the picture is one unit wide
    sector = _sector(y, x)
    radius, wall = rng.uniform(0.17, 0.23), rng.uniform(0.035, 0.05)
    brightness, floor = rng.uniform(0.7, 1.0), rng.uniform(0.08, 0.2)
    middle = np.array([0.08, 0.0]) + rng.uniform(-0.1, 0.1, 2)
    step = np.array(_STEPS[motion]) * rng.uniform(0.028, 0.04)
    turn = rng.uniform(-0.25, 0.25) + (rng.uniform(0, np.pi) if shape == "septum" else 0.0)
    beats, phase = rng.uniform(0.08, 0.12), rng.uniform(0, 2 * np.pi)
    clip = np.empty((frames, size, size), np.uint8)
    for number in range(frames):
        centre = middle + (number - (frames - 1) / 2) * step
        now = radius * (1 + 0.12 * np.sin(phase + 2 * np.pi * beats * number))
        tissue = _wall(y - centre[0], x - centre[1], shape, now, wall, turn, 0.5 / size)
        speckle = rng.rayleigh(1.0, (size, size)) / 1.25  # about 1 in the mean
        picture = sector * (floor * speckle + brightness * tissue * (0.7 + 0.3 * speckle))
        clip[number] = np.clip(255 * picture, 0, 255)
    return clip


def _sector(y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 inside of a fan that opens downwards from above the picture, 0 outside."""
    height, far = y + 0.62, np.hypot(y + 0.62, x)
    inside = (np.abs(np.arctan2(x, height)) < 0.75) & (far < 1.1) & (far > 0.15)
    return np.where(inside, 1.0, 0.0)


def _wall(
    y: npt.NDArray[np.float64],
    x: npt.NDArray[np.float64],
    shape: str,
    radius: float,
    wall: float,
    turn: float,
    soft: float,
) -> npt.NDArray[np.float64]:
    """Share of each pixel that the wall covers, with edges half a pixel soft."""
    along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    far = np.maximum(np.abs(along), np.abs(across)) / 0.89 if shape == "square" else np.hypot(along, across)
    distance = np.abs(far - radius) - wall
    if shape == "septum":
        distance = np.minimum(distance, np.maximum(np.abs(along) - wall, far - radius))
    return np.asarray(np.clip(0.5 - distance / (2 * soft), 0, 1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the data set that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=512)
    parser.add_argument("--test", type=int, default=256)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        folder = render_video(
            options.folder, train=options.train, test=options.test, size=options.size, seed=options.seed
        )
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.train + options.test} clips in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
