"""A simulated spinning lidar that writes frames in KITTI's object layout: cars, cyclists and pedestrians on a road.

    python -m limbeck_detection.lidar FOLDER --train 200 --val 50 --columns 1024 --seed 0

Each frame is a scene drawn at random: ground that is not quite flat, walls, trunks and poles without a class, and
objects made of boxes and ellipsoids. Every ray meets the nearest surface; what stands behind it is not seen. Ranges are
noisy, returns drop out, up to eleven times as often far away and at grazing angles, and reflectance is the material's,
less at an angle. The same seed writes the same files.

``training/velodyne``, ``calib``, ``label_2`` and ``ImageSets`` are as in KITTI; pictures are not drawn. Boxes in the
image are projections of the boxes in space; occlusion compares the returns of an object with those it would have alone.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck_core.errors import ConfigError

Array = npt.NDArray[np.float64]

CLASSES = ("Car", "Pedestrian", "Cyclist")
IMAGE = (375, 1242)  # height and width in pixels
# Projection of rectified camera coordinates, and the way there from the lidar's: KITTI's directions (x forward, y left,
# z up become x right, y down, z forward) with round numbers.
PROJECTION: Array = np.array([[720.0, 0.0, 610.0, 45.0], [0.0, 720.0, 175.0, 0.2], [0.0, 0.0, 1.0, 0.003]])
TO_CAMERA: Array = np.array([[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, -0.08], [1.0, 0.0, 0.0, -0.27]])

_PARTLY, _LARGELY = 0.85, 0.45  # of an object's returns: below the first it is partly, below the second largely hidden
_SIZES = {"Car": (3.9, 1.65, 1.55), "Pedestrian": (0.8, 0.65, 1.75), "Cyclist": (1.75, 0.6, 1.73)}
_PER_FRAME = {"Car": (2, 7), "Pedestrian": (1, 5), "Cyclist": (1, 4)}


@dataclass(frozen=True)
class Lidar:
    """The instrument.

    Args:
        beams: Rows of a turn.
        columns: Firings over the whole field of view.
        elevation: Lowest and highest beam in degrees. As in the HDL-64E the upper half of the beams shares the upper
            two fifths.
        azimuth: First and last firing in degrees, 0 forward, to the left positive; ``(-180, 180)`` is a whole turn.
        height: Of the sensor above the ground, in metres.
        longest: Longest range in metres.
        noise: Standard deviation of a range in metres.
        drop_out: Share of returns that are lost close by and head on.

    Raises:
        ConfigError: if a number is out of range.
    """

    beams: int = 64
    columns: int = 2048
    elevation: tuple[float, float] = (-24.8, 2.0)
    azimuth: tuple[float, float] = (-180.0, 180.0)
    height: float = 1.73
    longest: float = 80.0
    noise: float = 0.02
    drop_out: float = 0.05

    def __post_init__(self) -> None:
        """Refuse an instrument that cannot be."""
        if self.beams < 1 or self.columns < 1 or self.height <= 0 or self.longest <= 0:
            raise ConfigError(
                f"a lidar needs beams, columns, a height and a longest range above 0, got {self.beams}, "
                f"{self.columns}, {self.height} and {self.longest}"
            )
        if not (self.noise >= 0 and 0 <= self.drop_out < 1):
            raise ConfigError(f"noise must be 0 or more and drop_out in [0, 1), got {self.noise} and {self.drop_out}")
        if self.elevation[0] > self.elevation[1] or self.azimuth[0] >= self.azimuth[1]:
            raise ConfigError(f"elevation and azimuth rise, got {self.elevation} and {self.azimuth}")

    def directions(self) -> Array:
        """Unit vectors of all rays, shape ``(beams, columns, 3)``, the highest beam first."""
        low, high = self.elevation
        up = np.interp(np.linspace(0, 1, self.beams), [0, 0.5, 1], [high, 0.6 * high + 0.4 * low, low])
        up = np.radians(up)[:, None]
        around = np.radians(np.linspace(self.azimuth[1], self.azimuth[0], self.columns, endpoint=False))[None]
        level = np.cos(up)
        return np.stack(
            [level * np.cos(around), level * np.sin(around), np.broadcast_to(np.sin(up), (self.beams, self.columns))],
            axis=-1,
        )


@dataclass(frozen=True)
class Part:
    """One solid of an object, in the object's frame (x forward, y left, z up from its bottom centre).

    Args:
        shape: ``"box"`` or ``"ellipsoid"``.
        center: Its middle in metres.
        half: Half of its extent along each axis.
        reflectance: Of its surface, in [0, 1].
    """

    shape: str
    center: tuple[float, float, float]
    half: tuple[float, float, float]
    reflectance: float


@dataclass(frozen=True)
class Thing:
    """Something that stands in the scene.

    Args:
        kind: A class, or ``""`` for what has none.
        position: Bottom centre in lidar coordinates, metres.
        size: Length, width and height in metres.
        yaw: Turn about the vertical, radians, 0 along x.
        parts: Its solids.
    """

    kind: str
    position: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float
    parts: tuple[Part, ...]

    @property
    def radius(self) -> float:
        """Radius of the upright cylinder around it."""
        return math.hypot(self.size[0], self.size[1]) / 2


@dataclass
class Frame:
    """One turn of the lidar.

    Args:
        points: x, y, z in metres and reflectance in [0, 1], float32, shape ``(N, 4)``.
        owners: Number of the thing that each point lies on, -1 for the ground, shape ``(N,)``.
        things: Everything in the scene.
        visible: Returns of each thing.
        alone: Returns that each thing would have without the others.
    """

    points: npt.NDArray[np.float32]
    owners: npt.NDArray[np.int64]
    things: list[Thing]
    visible: list[int] = field(default_factory=list)
    alone: list[int] = field(default_factory=list)


def make_thing(kind: str, rng: np.random.Generator, position: tuple[float, float, float], yaw: float) -> Thing:
    """Build a car, a pedestrian or a cyclist of a size drawn around its class's.

    Raises:
        ConfigError: if the class is unknown.
    """
    if kind not in _SIZES:
        raise ConfigError(f"the lidar knows the classes {', '.join(CLASSES)}, got {kind!r}")
    length, width, height = (float(v) * min(max(float(rng.normal(1, 0.06)), 0.82), 1.18) for v in _SIZES[kind])
    build = {"Car": _car, "Pedestrian": _pedestrian, "Cyclist": _cyclist}[kind]
    return Thing(kind, position, (length, width, height), yaw, build(rng, length, width, height))


def _car(rng: np.random.Generator, length: float, width: float, height: float) -> tuple[Part, ...]:
    paint = float(rng.uniform(0.15, 0.9))
    belt = 0.55 * height
    clear = 0.12 * height  # between body and ground
    cabin = float(rng.uniform(0.45, 0.6)) * length
    body = Part("box", (0.0, 0.0, (belt + clear) / 2), (length / 2, width / 2, (belt - clear) / 2), paint)
    glass = Part("box", (-0.06 * length, 0.0, (belt + height) / 2), (cabin / 2, 0.44 * width, (height - belt) / 2), 0.1)
    wheels = tuple(
        Part(
            "ellipsoid",
            (fore * 0.32 * length, side * 0.42 * width, 0.2 * height),
            (0.3, 0.07 * width, 0.2 * height),
            0.05,
        )
        for fore in (-1, 1)
        for side in (-1, 1)
    )
    return (body, glass, *wheels)


def _pedestrian(rng: np.random.Generator, length: float, width: float, height: float) -> tuple[Part, ...]:
    cloth = float(rng.uniform(0.1, 0.8))
    stride = float(rng.uniform(0.1, 0.32)) * length
    legs = tuple(
        Part("ellipsoid", (side * stride, side * 0.12 * width, 0.24 * height), (0.09, 0.09, 0.25 * height), cloth * 0.7)
        for side in (-1, 1)
    )
    trunk = Part("ellipsoid", (0.0, 0.0, 0.64 * height), (0.2 * length, 0.48 * width, 0.22 * height), cloth)
    head = Part("ellipsoid", (0.0, 0.0, 0.92 * height), (0.1, 0.09, 0.08 * height), 0.5)
    return (*legs, trunk, head)


def _cyclist(rng: np.random.Generator, length: float, width: float, height: float) -> tuple[Part, ...]:
    cloth = float(rng.uniform(0.1, 0.8))
    wheels = tuple(
        Part("ellipsoid", (fore * 0.31 * length, 0.0, 0.33), (0.18 * length, 0.05, 0.33), 0.2) for fore in (-1, 1)
    )
    frame = Part("box", (0.0, 0.0, 0.32 * height), (0.3 * length, 0.04, 0.1 * height), 0.6)
    bar = Part("box", (0.28 * length, 0.0, 0.58 * height), (0.04, 0.45 * width, 0.03), 0.5)
    trunk = Part("ellipsoid", (-0.02 * length, 0.0, 0.68 * height), (0.16 * length, 0.38 * width, 0.2 * height), cloth)
    legs = Part("ellipsoid", (0.03 * length, 0.0, 0.4 * height), (0.12 * length, 0.25 * width, 0.2 * height), cloth)
    head = Part("ellipsoid", (0.05 * length, 0.0, 0.92 * height), (0.11, 0.1, 0.08 * height), 0.5)
    return (*wheels, frame, bar, trunk, legs, head)


def draw_scene(rng: np.random.Generator, lidar: Lidar, *, reach: float = 45.0) -> list[Thing]:
    """Place things at random in front of the camera, none through another, and others without a class around.

    Args:
        rng: Where random numbers come from.
        lidar: Its height says where the ground is.
        reach: Objects stand between 5 metres and this far away.
    """
    things: list[Thing] = []
    for kind, (least, most) in _PER_FRAME.items():
        for _ in range(int(rng.integers(least, most + 1))):
            _place(things, kind, rng, lidar, reach)
    for _ in range(int(rng.integers(4, 10))):
        _place(things, "", rng, lidar, reach + 15)
    return things


def _place(things: list[Thing], kind: str, rng: np.random.Generator, lidar: Lidar, reach: float) -> None:
    """Find a free place in a few tries; a crowded scene stays without."""
    for _ in range(12):
        x = float(rng.uniform(5.0, reach)) if kind == "Car" else float(rng.uniform(5.0, 0.75 * reach))
        y = float(rng.uniform(-0.75, 0.75)) * x
        along = rng.random() < 0.75  # most things move along the road
        yaw = (
            float(rng.choice([0.0, math.pi]) + rng.normal(0, 0.08)) if along else float(rng.uniform(-math.pi, math.pi))
        )
        yaw = (yaw + math.pi) % (2 * math.pi) - math.pi
        bottom = (x, y, -lidar.height)
        thing = make_thing(kind, rng, bottom, yaw) if kind else _clutter(rng, bottom, yaw)
        if all(math.dist(other.position, bottom) > other.radius + thing.radius + 0.2 for other in things):
            things.append(thing)
            return


def _clutter(rng: np.random.Generator, position: tuple[float, float, float], yaw: float) -> Thing:
    what = rng.random()
    if what < 0.4:  # a pole or a trunk
        wide, high = float(rng.uniform(0.1, 0.4)), float(rng.uniform(2.0, 5.0))
        size = (wide, wide, high)
        parts = (Part("box", (0.0, 0.0, high / 2), (wide / 2, wide / 2, high / 2), 0.3),)
    elif what < 0.75:  # a bush
        wide, high = float(rng.uniform(0.6, 2.0)), float(rng.uniform(0.6, 1.8))
        size = (wide, wide, high)
        parts = (Part("ellipsoid", (0.0, 0.0, high / 2), (wide / 2, wide / 2, high / 2), 0.4),)
    else:  # a piece of wall
        size = (float(rng.uniform(1.5, 6.0)), 0.3, float(rng.uniform(1.0, 3.0)))
        parts = (Part("box", (0.0, 0.0, size[2] / 2), (size[0] / 2, size[1] / 2, size[2] / 2), 0.5),)
    return Thing("", position, size, yaw, parts)


def scan(things: Sequence[Thing], lidar: Lidar, rng: np.random.Generator) -> Frame:
    """Send out every ray and return what comes back.

    Args:
        things: What stands in the scene.
        lidar: The instrument.
        rng: Where noise comes from.
    """
    rays = lidar.directions().reshape(-1, 3)
    ground, cosine, reflectance = _ground(rays, lidar, rng)
    depth = ground.copy()
    owner = np.full(len(rays), -1)
    lone: list[npt.NDArray[np.int64]] = []
    for number, thing in enumerate(things):
        seen = _rays_towards(rays, thing)
        distance, slope, shine = _meet(rays[seen], thing)
        hit = distance < np.minimum(ground[seen], lidar.longest)
        lone.append(seen[hit])
        nearer = distance < depth[seen]
        rows = seen[nearer]
        depth[rows], cosine[rows], reflectance[rows] = distance[nearer], slope[nearer], shine[nearer]
        owner[rows] = number
    # fewer photons return from afar and from grazing angles
    far = np.minimum(depth / lidar.longest, 1.0)
    lost = lidar.drop_out * (1 + 5 * far**2 + 5 * (1 - cosine) ** 4)
    kept = (depth < lidar.longest) & (rng.random(len(rays)) >= lost)
    measured = (depth + rng.normal(0, 1, len(rays)) * lidar.noise)[kept]
    shine = np.clip(reflectance * np.sqrt(np.clip(cosine, 0, 1)) + rng.normal(0, 0.02, len(rays)), 0, 1)[kept]
    points = np.concatenate([rays[kept] * measured[:, None], shine[:, None]], axis=1).astype(np.float32)
    return Frame(
        points,
        owner[kept],
        list(things),
        visible=np.bincount(owner[kept] + 1, minlength=len(things) + 1)[1:].tolist(),
        alone=[int(kept[rows].sum()) for rows in lone],
    )


def _ground(rays: Array, lidar: Lidar, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Where rays meet the ground: a plane whose height waves a little with place."""
    down = -rays[:, 2]
    depth = np.where(down > 1e-6, lidar.height / np.maximum(down, 1e-6), np.inf)
    meets = depth < 2 * lidar.longest
    x, y = (rays[:, axis] * np.where(meets, depth, 0.0) for axis in (0, 1))
    phase = rng.uniform(0, 2 * math.pi, 4)
    wave = 0.02 * (np.sin(0.21 * x + phase[0]) + np.sin(0.17 * y + phase[1]))
    depth = np.where(meets, (lidar.height - wave) / np.maximum(down, 1e-6), np.inf)
    road = 0.2 + 0.05 * np.sin(0.9 * x + phase[2]) * np.sin(0.8 * y + phase[3])
    return depth, np.where(meets, down, 0.0), road


def _rays_towards(rays: Array, thing: Thing) -> npt.NDArray[np.int64]:
    """Rays within the wedge that the thing's cylinder covers: the others need not be asked."""
    x, y, _ = thing.position
    distance = math.hypot(x, y)
    reach = thing.radius + 0.1
    if distance <= reach:
        return np.arange(len(rays))
    across = (rays[:, 0] * x + rays[:, 1] * y) / (distance * np.maximum(np.hypot(rays[:, 0], rays[:, 1]), 1e-9))
    return np.flatnonzero(across >= math.cos(math.asin(reach / distance)))


def _meet(rays: Array, thing: Thing) -> tuple[Array, Array, Array]:
    """Distance (infinity where rays miss), cosine of the angle to the surface, and reflectance."""
    turn, back = math.cos(thing.yaw), math.sin(thing.yaw)
    frame = np.array([[turn, back, 0.0], [-back, turn, 0.0], [0.0, 0.0, 1.0]])  # world to object
    local = rays @ frame.T
    eye = -frame @ np.array(thing.position)
    depth = np.full(len(rays), np.inf)
    cosine, shine = np.zeros(len(rays)), np.zeros(len(rays))
    for part in thing.parts:
        meet = _box if part.shape == "box" else _ellipsoid
        distance, slope = meet(local, eye - np.array(part.center), np.array(part.half))
        nearer = distance < depth
        depth, cosine = np.where(nearer, distance, depth), np.where(nearer, slope, cosine)
        shine = np.where(nearer, part.reflectance, shine)
    return depth, cosine, shine


def _box(rays: Array, eye: Array, half: Array) -> tuple[Array, Array]:
    safe = np.where(np.abs(rays) < 1e-12, 1e-12, rays)
    one, two = (-half - eye) / safe, (half - eye) / safe
    near, far = np.minimum(one, two), np.maximum(one, two)
    entry = near.max(axis=1)
    hit = (entry <= far.min(axis=1)) & (entry > 0)
    side = near.argmax(axis=1)
    slope = np.abs(np.take_along_axis(rays, side[:, None], axis=1)[:, 0])
    return np.where(hit, entry, np.inf), slope


def _ellipsoid(rays: Array, eye: Array, half: Array) -> tuple[Array, Array]:
    direction, origin = rays / half, eye / half
    a, b = (direction**2).sum(1), direction @ origin
    root = b**2 - a * ((origin**2).sum() - 1)
    entry = (-b - np.sqrt(np.maximum(root, 0))) / a
    hit = (root >= 0) & (entry > 0)
    normal = (eye + rays * np.where(hit, entry, 0.0)[:, None]) / half**2
    slope = np.abs((normal * rays).sum(1)) / np.maximum(np.linalg.norm(normal, axis=1), 1e-9)
    return np.where(hit, entry, np.inf), slope


def corners(thing: Thing) -> Array:
    """Corners of the box around a thing in lidar coordinates, shape ``(8, 3)``."""
    length, width, height = thing.size
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (0, 1)], dtype=np.float64)
    local = signs * np.array([length / 2, width / 2, height])
    turn, back = math.cos(thing.yaw), math.sin(thing.yaw)
    placed: Array = local @ np.array([[turn, back, 0.0], [-back, turn, 0.0], [0.0, 0.0, 1.0]])
    placed += np.array(thing.position)
    return placed


def project(places: Array) -> tuple[Array, Array]:
    """Pixels and depth before the camera of places in lidar coordinates, shapes ``(N, 2)`` and ``(N,)``."""
    camera = places @ TO_CAMERA[:, :3].T + TO_CAMERA[:, 3]
    image = camera @ PROJECTION[:, :3].T + PROJECTION[:, 3]
    return image[:, :2] / np.maximum(image[:, 2:], 1e-3), camera[:, 2]


def label_lines(frame: Frame) -> list[str]:
    """Lines of ``label_2``: every object of a class that stands before the camera and has returns.

    Args:
        frame: What was scanned.
    """
    lines = []
    for thing, visible, alone in zip(frame.things, frame.visible, frame.alone, strict=True):
        found = _annotate(thing, visible, alone) if thing.kind and visible else None
        if found is not None:
            lines.append(found)
    return lines


def _annotate(thing: Thing, visible: int, alone: int) -> str | None:
    pixels, depths = project(corners(thing))
    if depths.min() < 0.5:
        return None
    height, width = IMAGE
    low, high = pixels.min(0), pixels.max(0)
    left, right = (min(max(float(v), 0.0), width - 1.0) for v in (low[0], high[0]))
    top, bottom = (min(max(float(v), 0.0), height - 1.0) for v in (low[1], high[1]))
    whole = float((high - low).prod())
    inside = (right - left) * (bottom - top)
    if inside <= 0 or inside < 0.05 * whole:
        return None
    share = visible / alone
    occlusion = 0 if share >= _PARTLY else 1 if share >= _LARGELY else 2
    x, y, z = np.array(thing.position) @ TO_CAMERA[:, :3].T + TO_CAMERA[:, 3]
    turn = _wrapped(-thing.yaw - math.pi / 2)
    seen_from = _wrapped(turn - math.atan2(x, z))
    length, wide, tall = thing.size
    numbers = (seen_from, left, top, right, bottom, tall, wide, length, x, y, z, turn)
    return f"{thing.kind} {1 - inside / whole:.2f} {occlusion} " + " ".join(f"{value:.2f}" for value in numbers)


def _wrapped(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi


def calibration_lines() -> list[str]:
    """Lines of a ``calib`` file; the four cameras are one."""
    identity = np.eye(3)
    imu: Array = np.hstack([identity, np.array([[-0.81], [0.32], [-0.8]])])
    entries: dict[str, Array] = {f"P{number}": PROJECTION for number in range(4)}
    entries |= {"R0_rect": identity, "Tr_velo_to_cam": TO_CAMERA, "Tr_imu_to_velo": imu}
    return [f"{name}: " + " ".join(f"{value:.12e}" for value in matrix.ravel()) for name, matrix in entries.items()]


def simulate(
    folder: str | Path,
    *,
    train: int = 200,
    val: int = 50,
    seed: int = 0,
    lidar: Lidar | None = None,
    reach: float = 45.0,
) -> Path:
    """Write frames in KITTI's layout.

    Args:
        folder: Receives ``training/{velodyne,calib,label_2}`` and ``ImageSets/{train,val}.txt``.
        train: Number of training frames.
        val: Number of validation frames.
        seed: Writes the same files each time; no two frames share random numbers.
        lidar: The instrument. Default: one turn of 64 beams and 2048 firings.
        reach: See :func:`draw_scene`.

    Returns:
        The folder.

    Raises:
        ConfigError: if a number is out of range.
    """
    if train < 0 or val < 0 or seed < 0 or train + val < 1 or reach <= 7:
        raise ConfigError(
            "a simulation needs a frame at least, a seed of 0 or more and a reach above 7 m, got "
            f"train={train}, val={val}, seed={seed}, reach={reach}"
        )
    lidar = lidar or Lidar()
    folder = Path(folder)
    for name in ("velodyne", "calib", "label_2"):
        (folder / "training" / name).mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets").mkdir(parents=True, exist_ok=True)
    parts = {"train": range(train), "val": range(train, train + val)}
    for part, numbers in parts.items():
        (folder / "ImageSets" / f"{part}.txt").write_text("".join(f"{n:06d}\n" for n in numbers), encoding="utf-8")
        for number in numbers:
            rng = np.random.default_rng([seed, part == "val", number])
            frame = scan(draw_scene(rng, lidar, reach=reach), lidar, rng)
            _write(folder / "training", f"{number:06d}", frame)
    return folder


def _write(folder: Path, name: str, frame: Frame) -> None:
    frame.points.tofile(folder / "velodyne" / f"{name}.bin")
    for kind, lines in (("calib", calibration_lines()), ("label_2", label_lines(frame))):
        (folder / kind / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and simulate; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m limbeck_detection.lidar", description="Simulate lidar frames in KITTI's layout."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=200, metavar="N")
    parser.add_argument("--val", type=int, default=50, metavar="N")
    parser.add_argument("--beams", type=int, default=64, metavar="N")
    parser.add_argument("--columns", type=int, default=2048, metavar="N", help="firings over the field of view")
    parser.add_argument("--front", action="store_true", help="the front 90 degrees only, all the camera sees")
    parser.add_argument("--reach", type=float, default=45.0, metavar="METRES", help="objects stand this far at most")
    parser.add_argument("--seed", type=int, default=0)
    options: Any = parser.parse_args(arguments)
    try:
        around = (-45.0, 45.0) if options.front else (-180.0, 180.0)
        lidar = Lidar(options.beams, options.columns, azimuth=around)
        folder = simulate(
            options.folder, train=options.train, val=options.val, seed=options.seed, lidar=lidar, reach=options.reach
        )
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{folder}: {options.train} training and {options.val} validation frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
