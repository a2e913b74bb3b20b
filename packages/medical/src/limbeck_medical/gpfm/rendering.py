"""Rendered tiles that look a little like haematoxylin and eosin, of four kinds, for trials and tests.

    python -m limbeck_medical.gpfm.rendering ROOT

Nuclei are small or large, and scattered or in rings as around glands: two properties, of which each expert of a trial
can know one. Stain, brightness, density and texture differ from tile to tile and say nothing of either.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.float64]
SIZES = ("small", "large")
ARRANGEMENTS = ("ring", "scattered")
Property = Literal["both", "size", "arrangement"]
_HAEMATOXYLIN = np.array([0.35, 0.25, 0.60])
_EOSIN = np.array([0.92, 0.70, 0.80])
_RADII = {"small": 1.6, "large": 2.9}  # pixels of a tile of 48
_COVER = 0.16  # share of the tile under nuclei, so that neither size is darker


def render_tile(number: int, *, size: str, arrangement: str, side: int = 48, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Render one tile.

    Args:
        number: Of the tile; each is drawn anew.
        size: ``"small"`` or ``"large"`` nuclei.
        arrangement: ``"ring"`` or ``"scattered"``.
        side: Of the tile in pixels.
        seed: Of the whole set.

    Returns:
        RGB, ``(side, side, 3)``.

    Raises:
        ValueError: if a name is unknown.
    """
    if size not in SIZES or arrangement not in ARRANGEMENTS:
        raise ValueError(f"size is one of {SIZES} and arrangement one of {ARRANGEMENTS}, got {size!r}, {arrangement!r}")
    draw = np.random.RandomState([seed % 2**32, number])  # the one generator whose stream NumPy never changes
    scale = side / 48
    radius = _RADII[size] * scale * draw.uniform(0.9, 1.1)
    count = max(3, round(_COVER * draw.uniform(0.7, 1.3) * side**2 / (np.pi * radius**2)))
    axis = np.arange(side) + 0.5
    y, x = np.meshgrid(axis, axis, indexing="ij")
    ink = np.zeros((side, side))
    for cx, cy in _places(draw, arrangement, count, side):
        angle, stretch = draw.uniform(0, np.pi), draw.uniform(1.0, 1.4)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        distance = np.sqrt((u / stretch) ** 2 + (v * stretch) ** 2)
        ink = np.maximum(ink, draw.uniform(0.75, 1.0) / (1 + np.exp(np.clip((distance - radius) / 0.35, -50, 50))))
    stain = _HAEMATOXYLIN * draw.uniform(0.8, 1.2, 3)
    ground = _EOSIN * draw.uniform(0.85, 1.1, 3)
    texture = 1 + 0.12 * _smooth(draw, side)
    image = ground * texture[..., None] * (1 - ink[..., None]) + stain * ink[..., None]
    image = image * draw.uniform(0.85, 1.1) + 0.03 * draw.standard_normal((side, side, 3))
    pixels: npt.NDArray[np.uint8] = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    return pixels


def render_tiles(
    root: str | Path, count: int, *, part: str = "train", by: Property = "both", side: int = 48, seed: int = 0
) -> Path:
    """Write tiles into one folder a class, as many of each kind as of any other.

    Args:
        root: Folder, made if it is not there; files of the same names are replaced.
        count: Tiles in all.
        part: Folder inside ``root``; other parts have other tiles.
        by: Classes: ``"both"`` properties (four classes), ``"size"`` or ``"arrangement"`` (two).
        side: Of a tile in pixels.
        seed: Of everything random.

    Returns:
        ``root``.

    Raises:
        ValueError: if ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}")
    kinds = [(size, arrangement) for size in SIZES for arrangement in ARRANGEMENTS]
    stream = crc32(f"{part} {by} {seed}".encode())  # parts have tiles of their own, whatever their sizes
    for number in range(count):
        size, arrangement = kinds[number % len(kinds)]
        name = {"both": f"{size}_{arrangement}", "size": size, "arrangement": arrangement}[by]
        folder = Path(root) / part / name
        folder.mkdir(parents=True, exist_ok=True)
        tile = render_tile(number, size=size, arrangement=arrangement, side=side, seed=stream)
        Image.fromarray(tile).save(folder / f"tile_{number:05d}.png")
    return Path(root)


def render_trial(root: str | Path, *, seed: int = 0, scale: int = 1) -> Path:
    """Write all parts of a trial.

    ``train`` is for training without labels, ``size`` and ``arrangement`` are for the experts, ``labelled`` votes and
    trains the probe, ``val`` chooses settings, ``test`` is for the end.

    Args:
        root: Folder, made if it is not there.
        seed: Of everything random.
        scale: Divides the number of tiles: 1024, 512, 512, 200, 400 and 400.

    Returns:
        ``root``.
    """
    parts: tuple[tuple[str, int, Property], ...] = (
        ("train", 1024, "both"),
        ("size", 512, "size"),
        ("arrangement", 512, "arrangement"),
        ("labelled", 200, "both"),
        ("val", 400, "both"),
        ("test", 400, "both"),
    )
    for part, count, by in parts:
        render_tiles(root, max(4, count // scale), part=part, by=by, seed=seed)
    return Path(root)


def main(arguments: Sequence[str] | None = None) -> int:
    """Render the tiles of a trial into a folder.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m limbeck_medical.gpfm.rendering", description=main.__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print(render_trial(options.root, seed=options.seed))
    return 0


def _places(draw: np.random.RandomState, arrangement: str, count: int, side: int) -> list[tuple[float, float]]:
    if arrangement == "scattered":
        return [(draw.uniform(0, side), draw.uniform(0, side)) for _ in range(count)]
    centres = [(draw.uniform(0.2, 0.8) * side, draw.uniform(0.2, 0.8) * side) for _ in range(draw.randint(1, 3))]
    found = []
    for _ in range(count):
        cx, cy = centres[draw.randint(len(centres))]
        angle, distance = draw.uniform(0, 2 * np.pi), side * draw.uniform(0.2, 0.25)
        found.append((cx + distance * np.cos(angle), cy + distance * np.sin(angle)))
    return found


def _smooth(draw: np.random.RandomState, side: int) -> Array:
    """Waves of a few random directions, between about -1 and 1."""
    axis = np.linspace(0, 1, side)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    waves = np.zeros((side, side))
    for _ in range(4):
        fx, fy = draw.uniform(-6, 6, 2)
        waves += np.sin(2 * np.pi * (fx * x + fy * y + draw.uniform()))
    field: Array = waves / 2.5
    return field


if __name__ == "__main__":
    sys.exit(main())
