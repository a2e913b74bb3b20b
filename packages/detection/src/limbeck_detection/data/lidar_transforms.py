"""Augmentation of scenes of points: flips, turns, scales, what lies in range, and objects pasted from a database.

Lang et al., PointPillars, arXiv:1812.05784, section 3.2; Yan et al., SECOND, Sensors 2018, section 3.2. Each transform
takes and gives a mapping of ``points`` ``(n, 4)``, ``boxes`` ``(m, 7)`` and ``labels`` ``(m,)`` and draws from torch's
generator. Boxes in, boxes out: nothing is changed in place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from limbeck_core.errors import ConfigError, DataError
from limbeck_detection.data.kitti import CLASSES, KittiFrames, Scene
from limbeck_detection.pointpillars.boxes import limit_period
from limbeck_detection.rotated import bev_iou, points_in_boxes

DATABASE = "object_database"  # folder inside the data set


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


class FlipScene:
    """Mirror left and right.

    Args:
        probability: How often.

    Raises:
        ConfigError: if it lies outside [0, 1].
    """

    def __init__(self, probability: float = 0.5) -> None:
        if not 0 <= probability <= 1:
            raise ConfigError(f"FlipScene needs a probability in [0, 1], got {probability}")
        self.probability = probability

    def __call__(self, scene: Scene) -> Scene:
        """Mirror ``y`` and the headings."""
        if float(torch.rand(())) >= self.probability:
            return scene
        points, boxes = scene["points"].clone(), scene["boxes"].clone()
        points[:, 1] *= -1
        boxes[:, [1, 6]] *= -1
        return {**scene, "points": points, "boxes": boxes}


class TurnScene:
    """Turn everything around the sensor.

    Args:
        angle: Greatest angle to either side, in radians.
    """

    def __init__(self, angle: float = math.pi / 4) -> None:
        self.angle = angle

    def __call__(self, scene: Scene) -> Scene:
        """Turn by a random angle."""
        angle = _uniform(-self.angle, self.angle)
        cos, sin = math.cos(angle), math.sin(angle)
        points, boxes = scene["points"].clone(), scene["boxes"].clone()
        turn = torch.tensor([[cos, sin], [-sin, cos]], dtype=points.dtype)
        points[:, :2] = points[:, :2] @ turn
        boxes[:, :2] = boxes[:, :2] @ turn.to(boxes.dtype)
        boxes[:, 6] += angle
        return {**scene, "points": points, "boxes": boxes}


class ScaleScene:
    """Scale everything around the sensor, objects included.

    Args:
        low: Smallest factor.
        high: Greatest factor.

    Raises:
        ConfigError: unless ``0 < low <= high``.
    """

    def __init__(self, low: float = 0.95, high: float = 1.05) -> None:
        if not 0 < low <= high:
            raise ConfigError(f"ScaleScene needs 0 < low <= high, got {low} and {high}")
        self.low = low
        self.high = high

    def __call__(self, scene: Scene) -> Scene:
        """Scale by a random factor."""
        factor = _uniform(self.low, self.high)
        points, boxes = scene["points"].clone(), scene["boxes"].clone()
        points[:, :3] *= factor
        boxes[:, :6] *= factor
        return {**scene, "points": points, "boxes": boxes}


class KeepInRange:
    """Leave out points outside of a range, and objects whose middle lies outside of it seen from above.

    Headings are brought into [-pi, pi).

    Args:
        point_range: Smallest x, y, z and greatest x, y, z in metres; the greatest do not count any more.
    """

    def __init__(self, point_range: Sequence[float]) -> None:
        if len(point_range) != 6 or any(a >= b for a, b in zip(point_range[:3], point_range[3:], strict=True)):
            raise ConfigError(f"a range needs three smallest and three greatest coordinates, got {list(point_range)}")
        self.point_range = tuple(point_range)

    def __call__(self, scene: Scene) -> Scene:
        """Filter; points that are not finite are left out as well."""
        points, boxes = scene["points"], scene["boxes"].clone()
        low, high = (points.new_tensor(part) for part in (self.point_range[:3], self.point_range[3:]))
        kept = ((points[:, :3] >= low) & (points[:, :3] < high)).all(1) & torch.isfinite(points).all(1)
        inside = ((boxes[:, :2] > low[:2].to(boxes)) & (boxes[:, :2] < high[:2].to(boxes))).all(1)
        boxes[:, 6] = limit_period(boxes[:, 6], 0.5, 2 * math.pi)
        return {**scene, "points": points[kept], "boxes": boxes[inside], "labels": scene["labels"][inside]}


class ShufflePoints:
    """Change the order of the points, which decides what a full pillar keeps."""

    def __call__(self, scene: Scene) -> Scene:
        """Shuffle."""
        points = scene["points"]
        return {**scene, "points": points[torch.randperm(len(points))]}


@dataclass(frozen=True)
class ObjectDatabase:
    """Objects cut out of frames, with their points.

    Args:
        names: Class of each object.
        boxes: In the lidar's frame, float32 ``(n, 7)``.
        difficulty: 0 easy to 2 hard, -1 beyond; int64 ``(n,)``.
        ends: Where the points of each object end, int64 ``(n,)``.
        points: Points of all objects one after the other, float32 ``(p, 4)``; may be mapped from a file.
    """

    names: tuple[str, ...]
    boxes: npt.NDArray[np.float32]
    difficulty: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    points: npt.NDArray[np.float32]

    def points_of(self, index: int) -> Tensor:
        """Points of one object, ``(k, 4)``."""
        start = int(self.ends[index - 1]) if index else 0
        return torch.from_numpy(np.array(self.points[start : int(self.ends[index])]))

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Number of points of each object."""
        return np.diff(self.ends, prepend=0)

    def save(self, folder: str | Path) -> Path:
        """Write ``points.npy`` and ``objects.json`` into a folder, which is made; return it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "points.npy", self.points)
        content = {
            "names": list(self.names),
            "boxes": self.boxes.tolist(),
            "difficulty": self.difficulty.tolist(),
            "ends": self.ends.tolist(),
        }
        (folder / "objects.json").write_text(json.dumps(content), encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> ObjectDatabase:
        """Read what :meth:`save` wrote; points stay in the file until they are asked for.

        Raises:
            DataError: if the folder or a file is missing or damaged; the message says how to make it.
        """
        folder = Path(folder)
        try:
            content = json.loads((folder / "objects.json").read_text(encoding="utf-8"))
            points = np.load(folder / "points.npy", mmap_mode="r", allow_pickle=False)
            found = cls(
                tuple(content["names"]),
                np.asarray(content["boxes"], dtype=np.float32).reshape(-1, 7),
                np.asarray(content["difficulty"], dtype=np.int64),
                np.asarray(content["ends"], dtype=np.int64),
                points,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder} is no database of objects ({type(error).__name__}: {error}): write one with "
                f"python -m limbeck_detection.data.database ROOT --split train"
            ) from error
        if len(found.ends) and int(found.ends[-1]) != len(points):
            raise DataError(f"{folder}: points.npy holds {len(points)} points, objects.json speaks of {found.ends[-1]}")
        return found


def cut_objects(frames: KittiFrames) -> ObjectDatabase:
    """Cut the labelled objects of a data set's classes out of its frames.

    Args:
        frames: The frames; their transforms are not applied.
    """
    names: list[str] = []
    boxes, difficulty, points, counts = [], [], [], []
    for position in range(len(frames)):
        objects = frames.objects(position)
        chosen = [i for i, name in enumerate(objects.names) if name in frames.classes]
        target = frames.targets(position)["boxes"]
        cloud = frames.points(position)
        inside = points_in_boxes(cloud, target)
        names += [objects.names[i] for i in chosen]
        difficulty.append(objects.difficulty()[chosen])
        boxes.append(target.numpy())
        points += [cloud[row].numpy() for row in inside]
        counts += [int(row.sum()) for row in inside]
    return ObjectDatabase(
        tuple(names),
        np.concatenate([np.zeros((0, 7), np.float32), *boxes]),
        np.concatenate([np.zeros(0, np.int64), *difficulty]),
        np.cumsum(np.asarray(counts, dtype=np.int64)),
        np.concatenate([np.zeros((0, 4), np.float32), *points]),
    )


class PasteObjects:
    """Fill a scene up with objects of others, where they collide with nothing.

    Objects stay where their own frames had them. Points of the scene inside a pasted box are taken out.

    Args:
        root: Folder of the data set, which holds the database in ``object_database``.
        objects: Number of objects of each class that a scene is filled up to.
        classes: Names of the classes, by label.
        min_points: Least number of points of an object.
        folder: Folder of the database in ``root``.

    Raises:
        ConfigError: if ``objects`` names a class that is none.
        DataError: as :meth:`ObjectDatabase.load`.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        objects: Mapping[str, int] | None = None,
        classes: Sequence[str] = CLASSES,
        min_points: int = 5,
        folder: str = DATABASE,
    ) -> None:
        self.classes = tuple(classes)
        self.objects = dict.fromkeys(self.classes, 15) if objects is None else dict(objects)
        strange = [name for name in self.objects if name not in self.classes]
        if strange:
            raise ConfigError(f"objects of {strange} are to be pasted, but the classes are {list(self.classes)}")
        self.database = ObjectDatabase.load(Path(root) / folder)
        names = np.asarray(self.database.names)
        usable = (self.database.counts >= min_points) & (self.database.difficulty >= 0)
        self.pools = {name: np.flatnonzero(usable & (names == name)) for name in self.objects}

    def __call__(self, scene: Scene) -> Scene:
        """Paste."""
        chosen = torch.tensor(self._draw(scene["labels"]), dtype=torch.int64)
        candidates = torch.from_numpy(self.database.boxes[chosen.numpy()])
        boxes = torch.cat([scene["boxes"], candidates.to(scene["boxes"])])
        meets = bev_iou(boxes, boxes) > 0
        there = torch.zeros(len(boxes), dtype=torch.bool)
        start = len(scene["boxes"])
        there[:start] = True
        for row in range(start, len(boxes)):
            there[row] = not bool((meets[row] & there).any())
        pasted = there[start:].nonzero().flatten()
        if not len(pasted):
            return scene
        added = boxes[start + pasted]
        free = ~points_in_boxes(scene["points"], added.to(scene["points"])).any(0)
        clouds = [self.database.points_of(int(chosen[row])).to(scene["points"]) for row in pasted]
        labels = [self.classes.index(self.database.names[int(chosen[row])]) for row in pasted]
        return {
            **scene,
            "points": torch.cat([*clouds, scene["points"][free]]),
            "boxes": torch.cat([scene["boxes"], added]),
            "labels": torch.cat([scene["labels"], torch.tensor(labels, dtype=torch.int64)]),
        }

    def _draw(self, labels: Tensor) -> list[int]:
        drawn: list[int] = []
        for name, count in self.objects.items():
            wanted = count - int((labels == self.classes.index(name)).sum())
            pool = self.pools[name]
            if wanted > 0:
                drawn += pool[torch.randperm(len(pool))[:wanted].numpy()].tolist()
        return drawn
