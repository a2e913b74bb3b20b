"""KITTI's object benchmark: its labels, calibration and frames, in the lidar's coordinates.

Geiger et al., Are we ready for autonomous driving? The KITTI vision benchmark suite, CVPR 2012. A folder holds
``training/{velodyne,calib,label_2,image_2}/NAME.*`` and ``ImageSets/{train,val}.txt`` with one name a line; images are
looked at for their size alone and may be absent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from limbeck_core.build import build
from limbeck_core.errors import DataError, closest
from limbeck_detection.data.dataset import read_text
from limbeck_detection.data.pointclouds import read_points

Floats = npt.NDArray[np.float64]
Scene = dict[str, Any]
SceneTransform = Callable[[Scene], Scene]
CLASSES = ("Pedestrian", "Cyclist", "Car")
IMAGE_SIZE = (1242, 375)  # width and height in pixels, where there is no image
DONT_CARE = "DontCare"
_MINIMUM_DEPTH = 0.1  # metres before the camera; what lies nearer is projected from there
# limits of the three difficulties: pixels in the image (more than), and occlusion and truncation (at most)
LEAST_HEIGHT, MOST_OCCLUDED, MOST_TRUNCATED = (40, 25, 25), (0, 1, 2), (0.15, 0.3, 0.5)


@dataclass(frozen=True)
class KittiObjects:
    """Objects of one frame, true or found, as KITTI's files hold them.

    Args:
        names: Class of each object; ``DontCare`` marks regions of the image that nobody labelled.
        truncation: Share of the object outside of the image, 0 to 1; -1 where unknown.
        occlusion: 0 visible, 1 partly, 2 largely hidden, 3 unknown; -1 for found objects.
        alpha: Heading as the camera sees it, in radians; -10 where unknown.
        boxes_2d: ``(x1, y1, x2, y2)`` in pixels of the image, ``(n, 4)``.
        boxes: ``(x, y, z, l, w, h, ry)`` in the rectified camera's frame (x right, y down, z forward), metres and
            radians, the position at the middle of the bottom, ``(n, 7)``.
        scores: Of found objects, ``(n,)``; NaN for true ones.
    """

    names: tuple[str, ...]
    truncation: Floats
    occlusion: Floats
    alpha: Floats
    boxes_2d: Floats
    boxes: Floats
    scores: Floats

    def __len__(self) -> int:
        return len(self.names)

    def take(self, index: Sequence[int] | npt.NDArray[np.int64]) -> KittiObjects:
        """Some of the objects, by index."""
        rows = np.asarray(index, dtype=np.int64)
        return KittiObjects(
            tuple(self.names[row] for row in rows),
            *(
                getattr(self, name)[rows]
                for name in ("truncation", "occlusion", "alpha", "boxes_2d", "boxes", "scores")
            ),
        )

    def difficulty(self) -> npt.NDArray[np.int64]:
        """0 easy, 1 moderate, 2 hard, -1 harder than all, by the height in the image, occlusion and truncation."""
        height = self.boxes_2d[:, 3] - self.boxes_2d[:, 1]
        found = np.full(len(self), -1, dtype=np.int64)
        for level in (2, 1, 0):
            fits = (height > LEAST_HEIGHT[level]) & (self.occlusion <= MOST_OCCLUDED[level])
            found[fits & (self.truncation <= MOST_TRUNCATED[level])] = level
        return found

    @classmethod
    def of(cls, names: Sequence[str], rows: Sequence[Sequence[float]]) -> KittiObjects:
        """Make them of names and the 15 numbers that follow a name in a file of results (NaN for no score)."""
        table = np.asarray(rows, dtype=np.float64).reshape(len(names), 15)
        return cls(
            tuple(names),
            table[:, 0],
            table[:, 1],
            table[:, 2],
            table[:, 3:7],
            table[:, [10, 11, 12, 9, 8, 7, 13]],  # the file has height, width, length before the position
            table[:, 14],
        )


def read_objects(path: str | Path) -> KittiObjects:
    """Read a label file, or a file of results, of one frame; an empty file has no objects.

    Raises:
        DataError: if the file is missing or a line is none of KITTI's, with its number.
    """
    path = Path(path)
    names, rows = [], []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) not in (15, 16):
            raise DataError(
                f"{path}, line {number}: an object needs a class and 14 numbers, and a score if it is a result, got "
                f"{len(words)} words"
            )
        try:
            values = [float(word) for word in words[1:]]
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        names.append(words[0])
        rows.append(values if len(values) == 15 else [*values, math.nan])
    return KittiObjects.of(names, rows)


def write_objects(objects: KittiObjects, path: str | Path) -> None:
    """Write a label file, or with scores a file of results; the folder is made."""
    path = Path(path)
    lines = []
    for i, name in enumerate(objects.names):
        x, y, z, length, width, height, yaw = objects.boxes[i]
        numbers = [objects.alpha[i], *objects.boxes_2d[i], height, width, length, x, y, z, yaw]
        words = [name, f"{objects.truncation[i]:.2f}", f"{int(objects.occlusion[i])}", *(f"{v:.4f}" for v in numbers)]
        if not math.isnan(objects.scores[i]):
            words.append(f"{objects.scores[i]:.6f}")
        lines.append(" ".join(words))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@dataclass(frozen=True)
class Calibration:
    """How lidar, rectified camera and image of one frame belong together.

    Args:
        projection: From the rectified camera to the left colour image (``P2``), ``(3, 4)``.
        rectification: From the reference camera to the rectified one (``R0_rect``), ``(3, 3)``.
        lidar_to_reference: From the lidar to the reference camera (``Tr_velo_to_cam``), ``(3, 4)``.
    """

    projection: Floats
    rectification: Floats
    lidar_to_reference: Floats

    @property
    def _matrix(self) -> Floats:
        """From the lidar to the rectified camera, ``(3, 4)``."""
        return self.rectification @ self.lidar_to_reference

    def to_camera(self, points: Floats) -> Floats:
        """Carry positions ``(n, 3)`` from the lidar to the rectified camera."""
        matrix = self._matrix
        return np.asarray(points @ matrix[:, :3].T + matrix[:, 3])

    def to_lidar(self, points: Floats) -> Floats:
        """Carry positions ``(n, 3)`` from the rectified camera to the lidar."""
        matrix = self._matrix
        return np.asarray(np.linalg.solve(matrix[:, :3], (points - matrix[:, 3]).T).T)

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Pixels ``(n, 2)`` of positions in the rectified camera's frame, and their depths ``(n,)`` in metres."""
        image = points @ self.projection[:, :3].T + self.projection[:, 3]
        depth = image[:, 2]
        safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        return image[:, :2] / safe[:, None], depth

    def boxes_to_lidar(self, boxes: Floats) -> Floats:
        """Boxes ``(n, 7)`` of the camera (bottom, l, w, h, ry) in the lidar's frame (bottom, l, w, h, yaw)."""
        turned = np.concatenate([self.to_lidar(boxes[:, :3]), boxes[:, 3:6], -boxes[:, 6:] - math.pi / 2], 1)
        turned[:, 6] = wrap(turned[:, 6])
        return turned

    def boxes_to_camera(self, boxes: Floats) -> Floats:
        """Undo :meth:`boxes_to_lidar`."""
        turned = np.concatenate([self.to_camera(boxes[:, :3]), boxes[:, 3:6], -boxes[:, 6:] - math.pi / 2], 1)
        turned[:, 6] = wrap(turned[:, 6])
        return turned

    def boxes_to_image(self, boxes: Floats) -> Floats:
        """Smallest rectangles ``(x1, y1, x2, y2)`` around the corners of the camera's boxes, ``(n, 4)``.

        Corners nearer than 0.1 m before the camera are projected from there.
        """
        corners = camera_corners(boxes).reshape(-1, 3)
        corners[:, 2] = np.maximum(corners[:, 2], _MINIMUM_DEPTH)
        pixels = self.project(corners)[0].reshape(-1, 8, 2)
        return np.concatenate([pixels.min(1), pixels.max(1)], 1)

    def seen(self, points: Floats, image_size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Which positions ``(n, 3)`` of the lidar the image of this width and height shows."""
        pixels, depth = self.project(self.to_camera(points))
        return np.asarray((depth > 0) & (pixels >= 0).all(1) & (pixels < np.asarray(image_size)).all(1))


def camera_corners(boxes: Floats) -> Floats:
    """Corners of the camera's boxes ``(n, 7)``: four of the bottom, four of the top, ``(n, 8, 3)``."""
    x = np.array([0.5, 0.5, -0.5, -0.5] * 2) * boxes[:, 3:4]
    z = np.array([0.5, -0.5, -0.5, 0.5] * 2) * boxes[:, 4:5]
    y = np.array([0.0] * 4 + [-1.0] * 4) * boxes[:, 5:6]
    cos, sin = np.cos(boxes[:, 6:7]), np.sin(boxes[:, 6:7])
    return np.asarray(np.stack([x * cos + z * sin, y, z * cos - x * sin], -1) + boxes[:, None, :3])


def wrap(angle: Floats) -> Floats:
    """Bring angles into [-pi, pi)."""
    return np.asarray((angle + math.pi) % (2 * math.pi) - math.pi)


_LINES = {
    "projection": ("P2",),
    "rectification": ("R0_rect", "R_rect"),
    "lidar_to_reference": ("Tr_velo_to_cam", "Tr_velo_cam"),
}


def read_calibration(path: str | Path) -> Calibration:
    """Read a calibration file of one frame.

    Raises:
        DataError: if it is missing, or lacks a line or some of its numbers.
    """
    path = Path(path)
    lines = dict(
        line.replace(":", " ", 1).split(maxsplit=1) for line in read_text(path).splitlines() if len(line.split()) > 1
    )
    found = {}
    for name, keys in _LINES.items():
        key = next((key for key in keys if key in lines), None)
        size = 9 if name == "rectification" else 12
        if key is None:
            raise DataError(f"{path} has no line {keys[0]}, which places lidar and camera: {closest(keys[0], lines)}")
        try:
            numbers = np.array([float(word) for word in lines[key].split()])
        except ValueError as error:
            raise DataError(f"{path}, line {key}: {error}") from error
        if len(numbers) != size:
            raise DataError(f"{path}, line {key}: {size} numbers are needed, got {len(numbers)}")
        found[name] = numbers.reshape(3, -1)
    return Calibration(**found)


class KittiFrames(Dataset[Scene]):
    """Frames of KITTI's object benchmark, or of any data in its layout. A sample is a mapping:

    - ``ids``: the frame's position in the split;
    - ``inputs``: points, float32 ``(n, 4)``: x, y, z in metres and reflectance;
    - ``targets``: ``boxes`` float32 ``(n, 7)`` in the lidar's frame and ``labels`` int64 ``(n,)`` of the classes asked
      for; nothing else is a target;
    - ``frame``: its name;
    - ``truth``, ``calibration`` and ``image_size`` if asked for, as
      :class:`~limbeck_detection.evaluation.KittiMetric` needs them.

    Args:
        root: Folder of the data set.
        split: Name of a file in ``ImageSets``, or names of frames. Default: every frame that has a label file.
        folder: Folder of the frames in ``root``.
        velodyne: Folder of the points in there; files end in ``.bin``, or as
            :func:`~limbeck_detection.data.pointclouds.read_points` knows otherwise.
        classes: Names of the classes, by label.
        crop: Leave out points that the camera does not see, since nothing else is labelled.
        transforms: Applied one after the other to a mapping of ``points``, ``boxes`` and ``labels``; or configs of
            them. See :mod:`limbeck_detection.data.lidar_transforms`.
        truth: Give ``truth``, ``calibration`` and ``image_size`` as well, for evaluation.
        labelled: Read labels; without them ``targets`` are empty and ``truth`` cannot be given.

    Raises:
        DataError: if a file is missing or damaged, or ``split`` names an unknown file.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str | Sequence[str] | None = None,
        folder: str = "training",
        velodyne: str = "velodyne",
        classes: Sequence[str] = CLASSES,
        crop: bool = True,
        transforms: Sequence[SceneTransform | Mapping[str, Any]] = (),
        truth: bool = False,
        labelled: bool = True,
    ) -> None:
        if truth and not labelled:
            raise DataError("truth=True needs the label files, but labelled=False leaves them out")
        self.root = Path(root)
        self.folder = self.root / folder
        self.velodyne = velodyne
        self.classes = tuple(classes)
        self.crop = crop
        self.truth = truth
        self.labelled = labelled
        self.transforms: list[SceneTransform] = [build(transform) for transform in transforms]
        self.frames = self._frames(split)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def _frames(self, split: str | Sequence[str] | None) -> tuple[str, ...]:
        if isinstance(split, str):
            file = self.root / "ImageSets" / f"{split}.txt"
            if not file.is_file():
                near = closest(split, sorted(path.stem for path in file.parent.glob("*.txt")))
                raise DataError(f"there is no list of frames {file}: {near}; split=None takes every labelled frame")
            split = read_text(file).split()
        if split is None:
            source = self.folder / ("label_2" if self.labelled else self.velodyne)
            split = sorted(path.stem for path in source.glob("*") if path.is_file())
            if not split:
                raise DataError(
                    f"there are no files in {source}: KITTI's layout has {self.root}/training/velodyne, calib and "
                    "label_2; name another place with folder=... and velodyne=..."
                )
        return tuple(split)

    def __len__(self) -> int:
        return len(self.frames)

    def points(self, position: int) -> Tensor:
        """Points of a frame, ``(n, 4)``; cropped to what the camera sees if asked for."""
        frame = self.frames[position]
        folder = self.folder / self.velodyne
        path = folder / f"{frame}.bin"
        if not path.is_file():
            path = next((found for found in sorted(folder.glob(f"{frame}.*"))), path)
        points = read_points(path)
        if self.crop:
            seen = self.calibration(position).seen(points[:, :3].double().numpy(), self.image_size(position))
            points = points[torch.from_numpy(seen)]
        return points

    def objects(self, position: int) -> KittiObjects:
        """Every labelled object of a frame, ``DontCare`` included."""
        return read_objects(self.folder / "label_2" / f"{self.frames[position]}.txt")

    def calibration(self, position: int) -> Calibration:
        """Calibration of a frame."""
        return read_calibration(self.folder / "calib" / f"{self.frames[position]}.txt")

    def image_size(self, position: int) -> tuple[int, int]:
        """Width and height of a frame's image in pixels, or KITTI's usual ones where it has none."""
        path = self.folder / "image_2" / f"{self.frames[position]}.png"
        if not path.is_file():
            return IMAGE_SIZE
        try:
            with Image.open(path) as image:
                width, height = image.size
        except OSError as error:
            raise DataError(f"{path} is no readable image ({error})") from error
        return width, height

    def targets(self, position: int) -> dict[str, Tensor]:
        """Boxes in the lidar's frame and labels of the objects of the classes asked for."""
        if not self.labelled:
            return {"boxes": torch.zeros(0, 7), "labels": torch.zeros(0, dtype=torch.int64)}
        objects = self.objects(position)
        kept = objects.take([i for i, name in enumerate(objects.names) if name in self.classes])
        boxes = self.calibration(position).boxes_to_lidar(kept.boxes)
        labels = [self.classes.index(name) for name in kept.names]
        return {"boxes": torch.from_numpy(boxes).float(), "labels": torch.tensor(labels, dtype=torch.int64)}

    def set_epoch(self, epoch: int) -> None:
        """Tell the transforms which pass over the data a sample is read for."""
        for transform in self.transforms:
            follow = getattr(transform, "set_epoch", None)
            if follow is not None:
                follow(epoch)

    def __getitem__(self, position: int) -> Scene:
        frame = self.frames[position]
        scene: Scene = {"points": self.points(position), **self.targets(position)}
        for transform in self.transforms:
            scene = transform(scene)
        sample: Scene = {
            "ids": position % len(self),
            "inputs": scene["points"],
            "targets": {"boxes": scene["boxes"], "labels": scene["labels"]},
            "frame": frame,
        }
        if self.truth:
            sample["truth"] = self.objects(position)
        if self.truth or not self.labelled:
            sample["calibration"] = self.calibration(position)
            sample["image_size"] = self.image_size(position)
        return sample


def lidar_batch(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make a batch: ``ids`` ``(B,)``, and a list for everything else (``inputs``, ``targets``, ``frame``, ``truth``).

    For ``collate_fn`` of a dataloader.
    """
    batch: dict[str, Any] = {"ids": torch.tensor([int(sample["ids"]) for sample in samples])}
    for name in samples[0]:
        if name != "ids":
            batch[name] = [sample[name] for sample in samples]
    return batch
