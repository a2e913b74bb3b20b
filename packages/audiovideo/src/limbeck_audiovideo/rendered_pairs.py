"""A data set that the package renders itself: a hand on video, and what a sensor on its wrist measures.

    python -m limbeck_audiovideo.rendered_pairs FOLDER --seed 0

Six activities (wave, lift, circle, punch, eight, rest) of four seconds. A body and its hand are filmed at 8 frames a
second and 48 x 48 pixels (mp4); the wrist's acceleration, with gravity, and its rotation are written 50 times a second
(csv). People differ in tempo, reach, colours, and in how they strapped the sensor on. Four tables, no person in two:

- ``teacher.csv``: labelled, for a video teacher (a stand-in for the large labelled video sets that real teachers saw);
- ``pairs.csv``: without any label, for pretraining;
- ``few.csv``: a few labelled clips, for probes and supervised training;
- ``test.csv``: labelled, to be judged on.

The same seed renders the same files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from limbeck_audiovideo.imu.pairs import Clip, write_table
from limbeck_audiovideo.video import write_video
from limbeck_core.errors import ConfigError

ACTIVITIES = ("circle", "eight", "lift", "punch", "rest", "wave")
CHANNELS = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
SECONDS, IMU_RATE, FRAME_RATE, SIZE = 4.0, 50, 8, 48
GRAVITY = 9.81  # m/s^2
_FINE = 400  # moments a second at which motion is computed before it is measured
_TEMPO = {"circle": 1.0, "eight": 0.7, "lift": 0.6, "punch": 1.1, "rest": 0.3, "wave": 1.4}  # repeats a second
Array = npt.NDArray[np.float64]


class Part(NamedTuple):
    """One table.

    Args:
        people: Number of people.
        clips: Clips of each activity and person.
        labelled: Whether the table holds labels.
    """

    people: int
    clips: int
    labelled: bool


PARTS = {
    "teacher": Part(10, 4, True),
    "pairs": Part(40, 2, False),
    "few": Part(3, 2, True),
    "test": Part(8, 3, True),
}


class _Person(NamedTuple):
    tempo: float
    reach: float
    mounting: Array
    shirt: Array
    skin: Array
    place: Array


def render(folder: str | Path, *, parts: dict[str, Part] | None = None, seed: int = 0) -> Path:
    """Render the files and the tables.

    Args:
        folder: Receives ``video/``, ``imu/`` and a table for each part.
        parts: Sizes of the parts by name; by default 240, 480, 36 and 144 clips.
        seed: Renders the same files each time; parts and people never share random numbers.

    Returns:
        The folder.

    Raises:
        ConfigError: if a number is out of range.
    """
    parts = PARTS if parts is None else parts
    if seed < 0 or any(part.people < 1 or part.clips < 1 for part in parts.values()):
        raise ConfigError(f"rendering needs people and clips of 1 or more and a seed of 0 or more, got {parts}, {seed}")
    folder = Path(folder)
    for name in ("video", "imu"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for place, (name, part) in enumerate(parts.items()):
        clips = []
        for number in range(part.people):
            someone = _person(np.random.default_rng([seed, place, number]))
            for kind, activity in enumerate(ACTIVITIES):
                for take in range(part.clips):
                    rng = np.random.default_rng([seed, place, number, kind, take])
                    stem = f"{name}_{number:02d}_{kind}_{take}"
                    hand, tilt = _motion(activity, someone, rng)
                    video = write_video(folder / "video" / f"{stem}.mp4", _film(hand, someone, rng), float(FRAME_RATE))
                    imu = _write_imu(folder / "imu" / f"{stem}.csv", _measure(hand, tilt, someone, rng))
                    label = activity if part.labelled else ""
                    clips.append(Clip(video, imu, end=SECONDS, label=label, subject=f"{name}{number:02d}"))
        write_table(folder / f"{name}.csv", clips)
    return folder


def _person(rng: np.random.Generator) -> _Person:
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    return _Person(
        tempo=rng.uniform(0.8, 1.25),
        reach=rng.uniform(0.7, 1.3),
        mounting=_rotation(axis * rng.uniform(0, np.pi)),
        shirt=rng.uniform(40, 160, 3),
        skin=rng.uniform(150, 255, 3),
        place=rng.uniform(-4, 4, 2),
    )


def _rotation(vector: Array) -> Array:
    """Rodrigues' formula."""
    angle = float(np.linalg.norm(vector))
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turned: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turned


def _motion(activity: str, someone: _Person, rng: np.random.Generator) -> tuple[Array, Array]:
    """Path of the hand in metres, and its tilt in radians, ``(T, 3)`` each, at the fine rate."""
    t = np.arange(round(SECONDS * _FINE)) / _FINE
    turn = 2 * np.pi * _TEMPO[activity] * someone.tempo * rng.uniform(0.9, 1.1) * t + rng.uniform(0, 2 * np.pi)
    reach = 0.25 * someone.reach * rng.uniform(0.85, 1.15)
    still = np.zeros_like(t)
    x, y, z = {
        "circle": (np.cos(turn), np.sin(turn), still),
        "eight": (np.cos(turn), 0.6 * np.sin(2 * turn), still),
        "lift": (still, np.cos(turn), still),
        "punch": (still, still, np.maximum(np.cos(turn), 0) ** 2 * 1.6),
        "rest": (0.06 * np.cos(turn), 0.06 * np.sin(0.7 * turn), still),
        "wave": (np.cos(turn), 0.1 * np.sin(2 * turn), still),
    }[activity]
    sway = [0.02 * np.cos(2 * np.pi * rng.uniform(0.2, 0.6) * t + rng.uniform(0, 6)) for _ in range(3)]
    hand = np.stack([reach * a + b for a, b in zip((x, y, z), sway, strict=True)], 1)
    tilt = np.stack([1.2 * hand[:, 1], 0.4 * hand[:, 2], -1.6 * hand[:, 0]], 1) * rng.uniform(0.7, 1.3)
    return hand, tilt


def _film(hand: Array, someone: _Person, rng: np.random.Generator) -> torch.Tensor:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    picture = np.ones((SIZE, SIZE, 3)) * rng.uniform(20, 90, 3)
    across, down = someone.place
    body = (np.abs(columns - 24 - across) < 7) & (rows > 22 + down)
    picture[body] = someone.shirt
    frames = []
    for number in range(round(SECONDS * FRAME_RATE)):
        x, y, z = hand[round((number + 0.5) / FRAME_RATE * _FINE)]
        frame = picture.copy()
        away = np.hypot(columns - (24 + across + 50 * x), rows - (24 + down - 50 * y))
        frame[away < 3.5 * (1 + 2.5 * z)] = someone.skin
        frames.append(np.clip(frame + rng.normal(0, 10, frame.shape), 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def _measure(hand: Array, tilt: Array, someone: _Person, rng: np.random.Generator) -> Array:
    """Acceleration in m/s^2 and rotation in rad/s in the sensor's own axes, ``(L, 6)``."""
    step = 1 / _FINE
    acceleration = np.gradient(np.gradient(hand, step, axis=0), step, axis=0)
    rotation = np.gradient(tilt, step, axis=0)
    measured = []
    for moment in range(0, len(hand), _FINE // IMU_RATE):
        to_sensor = someone.mounting @ _rotation(tilt[moment]).T
        felt = to_sensor @ (acceleration[moment] + np.array([0.0, GRAVITY, 0.0]))
        measured.append(np.concatenate([felt, someone.mounting @ rotation[moment]]))
    bias = np.concatenate([rng.normal(0, 0.2, 3), rng.normal(0, 0.05, 3)])
    noise = rng.normal(size=(len(measured), 6)) * np.array([2.0] * 3 + [0.5] * 3)
    noisy: Array = np.stack(measured) + bias + noise
    return noisy


def _write_imu(path: Path, values: Array) -> Path:
    times = np.arange(len(values)) * 1000 / IMU_RATE
    table = np.column_stack([times, values])
    header = ",".join(("timestamp_ms", *CHANNELS))
    np.savetxt(path, table, fmt=["%.1f", *["%.5f"] * 6], delimiter=",", header=header, comments="")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Render the data set that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        folder = render(options.folder, seed=options.seed)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{sum(6 * part.people * part.clips for part in PARTS.values())} clips in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
