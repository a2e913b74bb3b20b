"""Clouds to learn from: shapes that the package makes, and ModelNet's folders of meshes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from limbeck_core.build import build
from limbeck_core.errors import ConfigError, DataError

Array = npt.NDArray[np.float64]
_PARTS = ("train", "test")


def _sphere(rng: np.random.Generator, count: int) -> Array:
    points = rng.normal(size=(count, 3))
    unit: Array = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit


def _box(rng: np.random.Generator, count: int) -> Array:
    points = rng.uniform(-1, 1, (count, 3))
    points[np.arange(count), rng.integers(3, size=count)] = rng.choice([-1.0, 1.0], count)
    return points


def _cylinder(rng: np.random.Generator, count: int) -> Array:
    angle, height = rng.uniform(0, 2 * math.pi, count), rng.uniform(-1, 1, count)
    radius = np.ones(count)
    lids = rng.random(count) < 1 / 3
    radius[lids] = np.sqrt(rng.random(int(lids.sum())))
    height[lids] = np.sign(height[lids])
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], 1)


def _cone(rng: np.random.Generator, count: int) -> Array:
    angle, along = rng.uniform(0, 2 * math.pi, count), np.sqrt(rng.random(count))
    height = 1 - 2 * along
    base = rng.random(count) < 0.3
    height[base] = -1
    return np.stack([along * np.cos(angle), along * np.sin(angle), height], 1)


def _torus(rng: np.random.Generator, count: int) -> Array:
    around, across = rng.uniform(0, 2 * math.pi, (2, count))
    thick = rng.uniform(0.2, 0.45)
    ring = 1 - thick + thick * np.cos(across)
    return np.stack([ring * np.cos(around), ring * np.sin(around), thick * np.sin(across)], 1)


def _table(rng: np.random.Generator, count: int) -> Array:
    points = rng.uniform(-1, 1, (count, 3))
    legs = rng.random(count) < 0.45
    points[~legs, 2] = 0.9 + 0.1 * points[~legs, 2]
    corner = rng.choice([-0.85, 0.85], (int(legs.sum()), 2))
    points[legs, :2] = corner + 0.08 * points[legs, :2]
    return points


def _helix(rng: np.random.Generator, count: int) -> Array:
    along = rng.random(count)
    angle = 2 * math.pi * along * rng.uniform(2, 3.5)
    tube = 0.12 * _sphere(rng, count)
    return np.stack([np.cos(angle), np.sin(angle), 2 * along - 1], 1) * 0.88 + tube


def _cross(rng: np.random.Generator, count: int) -> Array:
    points = 0.22 * _box(rng, count)
    axis = rng.integers(3, size=count)
    points[np.arange(count), axis] *= 1 / 0.22
    return points


FAMILIES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "sphere": _sphere,
    "box": _box,
    "cylinder": _cylinder,
    "cone": _cone,
    "torus": _torus,
    "table": _table,
    "helix": _helix,
    "cross": _cross,
}


def normalized(points: Array) -> Array:
    """Move the mean to the origin and bring the farthest point to a distance of 1; one place stays one place."""
    points = points - points.mean(0)
    radius = float(np.linalg.norm(points, axis=1).max())
    return points / radius if radius > 0 else points


class _Clouds(Dataset[dict[str, Any]]):
    """Clouds with a class each, whole or as views."""

    classes: tuple[str, ...]

    def __init__(self, transform: Callable[[Tensor], Any] | Mapping[str, Any] | None) -> None:
        self.transform = build(transform)

    def _cloud(self, index: int) -> tuple[Array, int, str]:
        raise NotImplementedError

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``targets``, ``ids``, ``split`` and ``inputs`` ``(n, 3)``, or ``views`` with a transform."""
        points, label, part = self._cloud(index)
        cloud = torch.from_numpy(points.astype(np.float32))
        named = {"targets": label, "ids": index, "split": part}
        return {"inputs": cloud, **named} if self.transform is None else {"views": self.transform(cloud), **named}


class Shapes(_Clouds):
    """Eight families of shapes, each cloud stretched, turned about the vertical and sampled anew.

    Args:
        part: ``"train"``, ``"test"``, or ``"both"``, training clouds first.
        size: Clouds of each part.
        points: Points of a cloud.
        noise: Standard deviation of each coordinate before normalisation.
        transform: Makes views of a cloud, for training.
        seed: The same clouds each time; parts share no random numbers.

    Raises:
        ConfigError: if an argument is out of range.
    """

    classes = tuple(FAMILIES)

    def __init__(
        self,
        part: str = "train",
        *,
        size: int = 320,
        points: int = 256,
        noise: float = 0.02,
        transform: Callable[[Tensor], Any] | Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(transform)
        if part not in (*_PARTS, "both"):
            raise ConfigError(f"part must be 'train', 'test' or 'both', got {part!r}")
        if size < 1 or points < 1 or noise < 0 or seed < 0:
            raise ConfigError(
                "shapes need a size and points of 1 or more, noise and a seed of 0 or more, got "
                f"{size}, {points}, {noise} and {seed}"
            )
        self.parts = _PARTS if part == "both" else (part,)
        self.size = size
        self.points = points
        self.noise = noise
        self.seed = seed

    def __len__(self) -> int:
        return self.size * len(self.parts)

    def _cloud(self, index: int) -> tuple[Array, int, str]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} clouds, asked for number {index}")
        part = self.parts[index // self.size]
        number = index % self.size
        rng = np.random.default_rng([self.seed, _PARTS.index(part), number])
        label = number % len(FAMILIES)
        points = FAMILIES[self.classes[label]](rng, self.points) * rng.uniform(0.5, 1.0, 3)
        turn = rng.uniform(0, 2 * math.pi)
        wheel = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
        return normalized(points @ wheel.T + rng.normal(0, 1, points.shape) * self.noise), label, part


class ModelNet(_Clouds):
    """ModelNet's folders: ``ROOT/<class>/{train,test}/*.off``, points drawn from the surface of each mesh.

    Args:
        root: Folder of the classes.
        part: ``"train"``, ``"test"``, or ``"both"``, training clouds first.
        points: Points of a cloud.
        transform: Makes views of a cloud, for training.
        seed: The same points each time.

    Raises:
        DataError: if the folder holds no such mesh; when one is read, if it is no mesh.
        ConfigError: if an argument is out of range.
    """

    def __init__(
        self,
        root: str | Path,
        part: str = "train",
        *,
        points: int = 1024,
        transform: Callable[[Tensor], Any] | Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(transform)
        if part not in (*_PARTS, "both") or points < 1:
            raise ConfigError(f"part must be 'train', 'test' or 'both', points 1 or more, got {part!r} and {points}")
        self.root = Path(root)
        self.points = points
        self.seed = seed
        parts = _PARTS if part == "both" else (part,)
        files = [(p, path) for p in parts for path in sorted(self.root.glob(f"*/{p}/*.off"))]
        self.classes = tuple(sorted({path.parents[1].name for _, path in files}))
        self.files = [(name, path, self.classes.index(path.parents[1].name)) for name, path in files]
        if not self.files:
            there = sorted(p.name for p in self.root.iterdir()) if self.root.is_dir() else []
            found = f"it has {', '.join(there[:5])}" if there else "it is empty or missing"
            raise DataError(f"{self.root} holds no <class>/{part}/*.off as ModelNet does: {found}")

    def __len__(self) -> int:
        return len(self.files)

    def _cloud(self, index: int) -> tuple[Array, int, str]:
        part, path, label = self.files[index]
        rng = np.random.default_rng([self.seed, index])
        return normalized(sample_surface(*read_off(path), self.points, rng)), label, part


def read_off(path: str | Path) -> tuple[Array, npt.NDArray[np.int64]]:
    """Read vertices ``(V, 3)`` and triangles ``(F, 3)`` of an OFF file; larger faces are cut into triangles.

    ModelNet's files whose first line lacks the break after ``OFF`` are read too.

    Raises:
        DataError: if the file is missing or damaged.
    """
    path = Path(path)
    try:
        words = path.read_text(encoding="ascii", errors="strict").split()
        if not words or not words[0].startswith("OFF"):
            raise ValueError("the first word is not OFF")
        words[0] = words[0][3:]
        words = words if words[0] else words[1:]
        counts = [int(word) for word in words[:3]]
        vertices = np.array(words[3 : 3 + 3 * counts[0]], dtype=np.float64).reshape(counts[0], 3)
        rest, place = np.array(words[3 + 3 * counts[0] :], dtype=np.float64), 0
        triangles = []
        for _ in range(counts[1]):
            corners = rest[place + 1 : place + 1 + int(rest[place])].astype(np.int64)
            if len(corners) != int(rest[place]) or len(corners) < 3:
                raise ValueError(f"a face has {len(corners)} corners")
            triangles += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
            place += 1 + len(corners)
        faces = np.array(triangles, dtype=np.int64).reshape(-1, 3)
        if not len(faces) or faces.min() < 0 or faces.max() >= counts[0] or not np.isfinite(vertices).all():
            raise ValueError("it has no face, or one whose corner does not exist")
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{path} is no readable OFF mesh ({error}): copy it again from its source") from error
    return vertices, faces


def sample_surface(vertices: Array, faces: npt.NDArray[np.int64], count: int, rng: np.random.Generator) -> Array:
    """Draw points from the surface of a mesh, evenly by area; from its vertices if it has none.

    Args:
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.
        count: Points wanted.
        rng: Where random numbers come from.

    Returns: ``(count, 3)``.
    """
    corner = vertices[faces]
    edges = corner[:, 1:] - corner[:, :1]
    areas = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    if areas.sum() <= 0:
        return vertices[rng.integers(len(vertices), size=count)]
    chosen = rng.choice(len(faces), count, p=areas / areas.sum())
    shares = rng.random((count, 2))
    shares = np.where(shares.sum(1, keepdims=True) > 1, 1 - shares, shares)
    places: Array = corner[chosen, 0] + (edges[chosen] * shares[..., None]).sum(1)
    return places


def clouds_batch(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join whole clouds of one length.

    Args:
        samples: Each with ``inputs``, ``targets``, ``ids`` and ``split``.

    Returns:
        ``inputs`` and ``large`` ``(B, n, 3)``, the same clouds for student and teacher; ``targets``, ``ids`` and
        ``split``, texts.
    """
    clouds = torch.stack([sample["inputs"] for sample in samples])
    return {
        "inputs": clouds,
        "large": clouds,
        "targets": torch.tensor([sample["targets"] for sample in samples]),
        "ids": torch.tensor([sample["ids"] for sample in samples]),
        "split": [sample["split"] for sample in samples],
    }
