"""The simulated lidar: geometry against a hand count, occlusion, noise, KITTI's fields and projections, bad numbers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from limbeck_core.errors import ConfigError
from limbeck_detection import lidar as simulation
from limbeck_detection.lidar import (
    CLASSES,
    IMAGE,
    Lidar,
    Part,
    Thing,
    corners,
    label_lines,
    main,
    project,
    scan,
    simulate,
)

CLEAN = Lidar(beams=32, columns=256, azimuth=(-45.0, 45.0), noise=0.0, drop_out=0.0)
SMALL = ("--beams", "16", "--columns", "64", "--front")


def wall(x: float, *, kind: str = "Car", width: float = 4.0, yaw: float = 0.0) -> Thing:
    part = Part("box", (0.0, 0.0, 0.75), (0.5, width / 2, 0.75), 0.5)
    return Thing(kind, (x, 0.0, -CLEAN.height), (1.0, width, 1.5), yaw, (part,))


def numbers(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def local(points: np.ndarray, thing: Thing) -> np.ndarray:
    """Points in the frame of a thing."""
    moved = points[:, :3] - np.array(thing.position)
    turn, back = math.cos(thing.yaw), math.sin(thing.yaw)
    return np.stack([moved[:, 0] * turn + moved[:, 1] * back, moved[:, 1] * turn - moved[:, 0] * back, moved[:, 2]], 1)


def test_rays_meet_the_face_that_is_turned_to_them() -> None:
    frame = scan([wall(10.0)], CLEAN, numbers())
    own = frame.points[frame.owners == 0]
    face = own[np.isclose(own[:, 0], 9.5, atol=1e-4)]
    assert len(face) > 0.9 * len(own)  # the rest lies on its top
    assert np.abs(own[:, 1]).max() <= 2.0 + 1e-4
    assert own[:, 2].max() <= -CLEAN.height + 1.5 + 1e-4
    assert frame.visible == frame.alone == [len(own)]


def test_every_kind_stays_inside_its_box_and_turns_with_it() -> None:
    for number, kind in enumerate(CLASSES):
        thing = simulation.make_thing(kind, numbers(number), (8.0, 1.0, -CLEAN.height), 0.7)
        lidar = dataclasses.replace(CLEAN, beams=128, columns=1024)
        frame = scan([thing], lidar, numbers())
        own = local(frame.points[frame.owners == 0], thing)
        half = np.array(thing.size) / 2
        assert len(own) > 60
        assert (np.abs(own[:, :2]) <= half[:2] + 1e-3).all()
        assert own[:, 2].min() >= -0.02 * thing.size[2]
        assert 0.85 * thing.size[2] < own[:, 2].max() <= thing.size[2] + 1e-3


def test_what_stands_behind_is_not_seen_and_leaves_a_shadow() -> None:
    front, behind = wall(10.0, width=6.0), wall(20.0, width=2.0)
    frame = scan([behind, front], CLEAN, numbers())
    assert frame.visible[0] < 0.5 * frame.alone[0]
    assert frame.visible[1] == frame.alone[1]
    shadow = [
        int(((f.points[:, 0] > 12) & (f.points[:, 0] < 18) & (np.abs(f.points[:, 1]) < 2) & (f.owners == -1)).sum())
        for f in (scan([], CLEAN, numbers()), frame)
    ]
    assert shadow[0] > 50
    assert shadow[1] == 0
    hidden = scan([wall(12.0, width=1.0), front], CLEAN, numbers())
    assert hidden.visible[0] == 0


@pytest.mark.parametrize(("width", "level"), [(0.4, 0), (1.6, 1), (2.6, 2)])
def test_occlusion_levels_follow_the_share_that_is_seen(width: float, level: int) -> None:
    tall = Thing("", (10.0, 0.0, -1.73), (0.2, width, 4.0), 0.0, (Part("box", (0, 0, 2), (0.1, width / 2, 2), 0.5),))
    lines = label_lines(scan([wall(20.0, width=8.0), tall], CLEAN, numbers()))
    assert [line.split()[2] for line in lines] == [str(level)]


def test_noise_moves_points_along_their_rays_only() -> None:
    still, noisy = (scan([wall(10.0)], dataclasses.replace(CLEAN, noise=n), numbers()) for n in (0.0, 0.1))
    ranges = [np.linalg.norm(frame.points[:, :3], axis=1) for frame in (still, noisy)]
    np.testing.assert_allclose(
        still.points[:, :3] / ranges[0][:, None], noisy.points[:, :3] / ranges[1][:, None], atol=1e-5
    )
    assert np.std(ranges[1] - ranges[0]) == pytest.approx(0.1, rel=0.1)


def test_returns_drop_out_and_reflectance_stays_in_range() -> None:
    full, thin = (scan([wall(10.0)], dataclasses.replace(CLEAN, drop_out=d), numbers()) for d in (0.0, 0.1))
    assert 0.4 < len(thin.points) / len(full.points) < 0.9
    assert thin.points[:, 3].min() >= 0
    assert thin.points[:, 3].max() <= 1
    ranges = np.linalg.norm(full.points[:, :3], axis=1)
    assert ranges.max() <= CLEAN.longest


def test_a_whole_turn_looks_backwards_too() -> None:
    frame = scan([], Lidar(beams=16, columns=128), numbers())
    assert (frame.points[:, 0] < 0).mean() == pytest.approx(0.5, abs=0.05)
    assert (frame.owners == -1).all()


def test_labels_are_kitti_s() -> None:
    thing = dataclasses.replace(wall(20.0), yaw=0.3, position=(20.0, 2.0, -1.73))
    (line,) = label_lines(scan([thing], CLEAN, numbers()))
    kind, *rest = line.split()
    values = [float(value) for value in rest]
    truncated, _, alpha = values[:3]
    assert kind == "Car"
    assert truncated == 0
    assert values[7:10] == [1.5, 4.0, 1.0]  # height, width, length
    np.testing.assert_allclose(values[10:13], [-2.0, 1.65, 19.73], atol=0.005)
    turn = values[13]
    assert turn == pytest.approx(-0.3 - math.pi / 2, abs=0.006)
    assert alpha == pytest.approx(turn - math.atan2(-2.0, 19.73), abs=0.011)
    # corners from the label's own words, as KITTI's development kit draws them
    height, width, length = values[7:10]
    signs = [(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (0, -1)]
    box = np.array([[a * length / 2, c * height, b * width / 2] for a, b, c in signs])
    turned = np.stack(
        [
            box[:, 0] * math.cos(turn) + box[:, 2] * math.sin(turn),
            box[:, 1],
            -box[:, 0] * math.sin(turn) + box[:, 2] * math.cos(turn),
        ],
        1,
    ) + np.array(values[10:13])
    image = np.hstack([turned, np.ones((8, 1))]) @ simulation.PROJECTION.T
    pixels = image[:, :2] / image[:, 2:]
    np.testing.assert_allclose([*pixels.min(0), *pixels.max(0)], values[3:7], atol=1.0)


def test_boxes_cut_by_the_picture_say_so_and_those_outside_have_no_label() -> None:
    cut = dataclasses.replace(wall(8.0), position=(8.0, -7.0, -1.73))
    outside = dataclasses.replace(wall(8.0), position=(8.0, 20.0, -1.73))
    behind = dataclasses.replace(wall(8.0), position=(-8.0, 0.0, -1.73))
    lidar = dataclasses.replace(CLEAN, columns=1024, azimuth=(-180.0, 180.0))
    frame = scan([cut, outside, behind], lidar, numbers())
    assert min(frame.visible) > 0
    (line,) = label_lines(frame)
    values = [float(value) for value in line.split()[1:]]
    assert 0.05 < values[0] < 0.95
    assert values[5] == IMAGE[1] - 1
    pixels, _ = project(corners(cut))
    assert pixels[:, 0].max() > IMAGE[1]


def test_the_same_seed_writes_the_same_files_and_another_does_not(tmp_path: Path) -> None:
    lidar = Lidar(16, 64, azimuth=(-45.0, 45.0))
    one, two, other = (
        simulate(tmp_path / name, train=2, val=1, seed=seed, lidar=lidar)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    files = sorted(path.relative_to(one) for path in one.rglob("*.*"))
    assert [str(f) for f in files if f.parts[0] == "ImageSets"] == ["ImageSets/train.txt", "ImageSets/val.txt"]
    assert len(files) == 2 + 3 * 3
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)
    assert (one / "training/velodyne/000000.bin").read_bytes() != (other / "training/velodyne/000000.bin").read_bytes()
    assert (one / "ImageSets/train.txt").read_text() == "000000\n000001\n"
    assert (one / "ImageSets/val.txt").read_text() == "000002\n"
    assert (one / "training/velodyne/000000.bin").stat().st_size % 16 == 0
    calibration = (one / "training/calib/000000.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in calibration] == [
        "P0", "P1", "P2", "P3", "R0_rect", "Tr_velo_to_cam", "Tr_imu_to_velo",
    ]  # fmt: skip
    lines = [line.split() for path in (one / "training/label_2").iterdir() for line in path.read_text().splitlines()]
    assert lines
    assert all(len(line) == 15 and line[0] in CLASSES for line in lines)


def test_objects_do_not_stand_in_each_other() -> None:
    things = simulation.draw_scene(numbers(), CLEAN)
    assert {thing.kind for thing in things} == {*CLASSES, ""}
    for i, one in enumerate(things):
        assert all(math.dist(one.position, other.position) > one.radius + other.radius for other in things[:i])


def test_the_command_says_where_and_refuses_nonsense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "kitti"), "--train", "1", "--val", "1", *SMALL]) == 0
    assert "1 training and 1 validation frames" in capsys.readouterr().out
    assert main([str(tmp_path / "none"), "--train", "0", "--val", "0", *SMALL]) == 1
    assert "a simulation needs a frame at least" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fields", [{"beams": 0}, {"height": 0.0}, {"noise": -1.0}, {"drop_out": 1.0}, {"azimuth": (10.0, -10.0)}]
)
def test_an_instrument_that_cannot_be_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(CLEAN, **fields)
    with pytest.raises(ConfigError, match="got 'Tram'"):
        simulation.make_thing("Tram", numbers(), (5.0, 0.0, 0.0), 0.0)
