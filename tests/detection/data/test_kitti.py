"""KITTI's files, frames and the augmentation of scenes, on small ones made here."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck_core.errors import ConfigError, DataError, MissingDependency
from limbeck_detection.data import (
    FlipScene,
    KeepInRange,
    KittiFrames,
    KittiObjects,
    ObjectDatabase,
    PasteObjects,
    ScaleScene,
    ShufflePoints,
    TurnScene,
    lidar_batch,
    read_calibration,
    read_objects,
    read_points,
    write_objects,
    write_points,
)
from limbeck_detection.data.database import main
from limbeck_detection.data.kitti import Calibration, camera_corners
from limbeck_detection.rotated import bev_iou, points_in_boxes

# A camera that looks along the lidar's x: its x is -y of the lidar, its y is -z, 0.3 m ahead.
CALIB = """P0: 1 0 0 0 0 1 0 0 0 0 1 0
P2: 700 0 600 0 0 700 180 0 0 0 1 0
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 -0.3
Tr_imu_to_velo: 1 0 0 0 0 1 0 0 0 0 1 0
"""
LABELS = """Car 0.00 0 -1.57 500 150 700 250 1.50 1.60 4.00 0.00 1.70 14.70 -1.57
Pedestrian 0.10 1 0.20 900 150 950 250 1.80 0.60 0.80 5.00 1.60 9.70 0.00
Van 0.00 0 0.00 10 10 60 60 2.00 2.00 5.00 -9.00 1.70 19.70 0.00
DontCare -1 -1 -10 10 10 60 60 -1 -1 -1 -1000 -1000 -1000 -10
"""


def cloud() -> Tensor:
    """Ten points in the car, six in the pedestrian, some elsewhere, two behind the camera."""
    rng = torch.Generator().manual_seed(0)
    car = torch.rand(10, 3, generator=rng) * torch.tensor([3.8, 1.5, 1.4]) + torch.tensor([13.1, -0.75, -1.65])
    person = torch.rand(6, 3, generator=rng) * torch.tensor([0.5, 0.7, 1.7]) + torch.tensor([9.75, -5.35, -1.55])
    other = torch.rand(40, 3, generator=rng) * torch.tensor([20.0, 2.0, 0.1]) + torch.tensor([20.0, -1.0, -1.8])
    behind = torch.tensor([[-5.0, 0, 0], [-9.0, 1, 0]])
    points = torch.cat([car, person, other, behind])
    return torch.cat([points, torch.rand(len(points), 1, generator=rng)], 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("000000", "000001"):
        for kind, text in (("calib", CALIB), ("label_2", LABELS)):
            path = tmp_path / "training" / kind / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        write_points(cloud(), tmp_path / "training" / "velodyne" / f"{name}.bin")
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "train.txt").write_text("000001\n")
    return tmp_path


def test_objects_survive_a_round_trip(root: Path, tmp_path: Path) -> None:
    objects = read_objects(root / "training/label_2/000000.txt")
    assert objects.names == ("Car", "Pedestrian", "Van", "DontCare")
    assert objects.boxes[0].tolist() == [0.0, 1.7, 14.7, 4.0, 1.6, 1.5, -1.57]
    assert objects.take([0, 1, 2]).difficulty().tolist() == [0, 1, 0]
    write_objects(objects, tmp_path / "again.txt")
    again = read_objects(tmp_path / "again.txt")
    assert again.names == objects.names
    for name in ("truncation", "occlusion", "alpha", "boxes_2d", "boxes", "scores"):
        np.testing.assert_allclose(getattr(again, name), getattr(objects, name))


def test_scores_are_the_sixteenth_word(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Car -1 -1 0 0 0 9 9 1.5 1.6 4 0 1.7 20 0.5 0.875\n\n")
    objects = read_objects(tmp_path / "a.txt")
    assert objects.scores.tolist() == [0.875]
    write_objects(objects, tmp_path / "b.txt")
    assert read_objects(tmp_path / "b.txt").scores.tolist() == [0.875]
    (tmp_path / "none.txt").write_text("")
    assert len(read_objects(tmp_path / "none.txt")) == 0


def test_boxes_stand_where_the_calibration_says(root: Path) -> None:
    calibration = read_calibration(root / "training/calib/000000.txt")
    objects = read_objects(root / "training/label_2/000000.txt")
    car = calibration.boxes_to_lidar(objects.boxes[:1])
    np.testing.assert_allclose(car[0], [15, 0, -1.7, 4, 1.6, 1.5, 0], atol=1e-3)  # ahead, along the road
    random = np.random.default_rng(0).uniform(-3, 3, (20, 7)) + np.array([0, 0, 9, 5, 5, 5, 0])
    back = calibration.boxes_to_camera(calibration.boxes_to_lidar(random))
    np.testing.assert_allclose(back, random, atol=1e-9)


def test_rectangles_surround_the_corners(root: Path) -> None:
    calibration = read_calibration(root / "training/calib/000000.txt")
    box = np.array([[1.0, 1.7, 20.0, 4.0, 2.0, 1.5, 0.0]])  # x from -1 to 3, z from 19 to 21, y from 0.2 to 1.7
    expected = [600 - 700 / 19, 180 + 700 * 0.2 / 21, 600 + 700 * 3 / 19, 180 + 700 * 1.7 / 19]
    np.testing.assert_allclose(calibration.boxes_to_image(box)[0], expected)
    turned = camera_corners(np.array([[0.0, 0, 10, 4, 2, 1, math.pi / 2]]))[0]  # the front points towards the camera
    assert turned[:, 2].min() == pytest.approx(8)
    assert turned[:2, 2].tolist() == pytest.approx([8, 8])
    assert np.isfinite(calibration.boxes_to_image(np.array([[0.0, 1, 0.5, 4, 2, 1.5, 1.0]]))).all()  # around the camera


def test_a_turn_is_the_same_in_both_frames() -> None:
    # a car that heads left (+y of the lidar) heads towards -x of the camera: ry is pi or -pi
    calibration = Calibration(
        np.eye(3, 4), np.eye(3), np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]], dtype=np.float64)
    )
    left = calibration.boxes_to_camera(np.array([[10, 0, 0, 4, 2, 1.5, math.pi / 2]]))
    assert abs(left[0, 6]) == pytest.approx(math.pi)
    corners = camera_corners(left)[0]
    assert corners[:2, 0].tolist() == pytest.approx([-2, -2])  # the front


def test_frames_give_points_boxes_and_labels(root: Path) -> None:
    frames = KittiFrames(root)
    assert (len(frames), frames.num_classes) == (2, 3)
    sample = frames[1]
    assert sample["inputs"].shape == (56, 4)  # without the two behind the camera
    assert sample["targets"]["labels"].tolist() == [2, 0]
    inside = points_in_boxes(sample["inputs"], sample["targets"]["boxes"])
    assert inside.sum(1).tolist() == [10, 6]
    assert (sample["ids"], sample["frame"]) == (1, "000001")
    assert "truth" not in sample
    assert len(KittiFrames(root, crop=False)[0]["inputs"]) == 58
    assert KittiFrames(root, split="train").frames == ("000001",)
    assert KittiFrames(root, split=["000000"], classes=["Van"])[0]["targets"]["labels"].tolist() == [0]


def test_batches_keep_lists(root: Path) -> None:
    frames = KittiFrames(root, truth=True)
    batch = lidar_batch([frames[0], frames[1]])
    assert next(iter(batch)) == "ids"
    assert batch["ids"].tolist() == [0, 1]
    assert [len(points) for points in batch["inputs"]] == [56, 56]
    assert isinstance(batch["truth"][0], KittiObjects)
    assert batch["image_size"] == [(1242, 375)] * 2


def test_frames_without_labels_serve_prediction(root: Path) -> None:
    (root / "training" / "label_2" / "000000.txt").unlink()
    sample = KittiFrames(root, labelled=False)[0]
    assert sample["targets"]["boxes"].shape == (0, 7)
    assert isinstance(sample["calibration"], Calibration)
    with pytest.raises(DataError, match="truth=True needs the label files"):
        KittiFrames(root, labelled=False, truth=True)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("label_2/000000.txt", "Car 0 0 0\n", r"line 1: an object needs a class and 14 numbers.*got 4 words"),
        ("label_2/000000.txt", "\nCar 0 0 0 a 0 9 9 1.5 1.6 4 0 1.7 20 0.5\n", r"line 2: could not convert"),
        ("calib/000000.txt", CALIB.replace("Tr_velo_to_cam", "Tr_none"), r"has no line Tr_velo_to_cam"),
        ("calib/000000.txt", CALIB.replace("P2: 700", "P2:"), r"line P2: 12 numbers are needed, got 11"),
        ("calib/000000.txt", CALIB.replace("P2: 700", "P2: x"), r"line P2: could not convert"),
        ("velodyne/000000.bin", b"x" * 37, r"has 37 bytes, which is no multiple of 16 .*truncated"),
    ],
)
def test_damaged_files_are_named(root: Path, file: str, content: str | bytes, message: str) -> None:
    path = root / "training" / file
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    with pytest.raises(DataError, match=f"(?s){path}.*{message}"):
        KittiFrames(root)[0]


def test_missing_files_are_named(root: Path) -> None:
    with pytest.raises(DataError, match=r"no list of frames .*trian\.txt: did you mean 'train'"):
        KittiFrames(root, split="trian")
    with pytest.raises(DataError, match="KITTI's layout has"):
        KittiFrames(root / "elsewhere")
    (root / "training/velodyne/000000.bin").unlink()
    with pytest.raises(DataError, match=r"no file of points .*000000\.bin"):
        KittiFrames(root)[0]


def test_an_empty_frame_has_no_points(root: Path) -> None:
    (root / "training/velodyne/000000.bin").write_bytes(b"")
    assert KittiFrames(root)[0]["inputs"].shape == (0, 4)


# ---------------------------------------------------------------------- files of points


def test_points_from_bin_and_npy(tmp_path: Path) -> None:
    points = cloud()
    for name in ("a.bin", "a.npy"):
        write_points(points, tmp_path / name)
        assert torch.equal(read_points(tmp_path / name), points)
    np.save(tmp_path / "wide.npy", np.arange(12, dtype=np.float64).reshape(2, 6))
    assert read_points(tmp_path / "wide.npy").tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert read_points(tmp_path / "a.npy", features=3).shape == (58, 3)


@pytest.mark.parametrize("name", ["a.ply", "a.pcd"])
def test_points_from_pcd_and_ply_need_open3d(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_text("anything")
    monkeypatch.setitem(sys.modules, "open3d", None)  # as where it is not installed; with it: tests/openmmlab
    with pytest.raises(MissingDependency, match=r"pip install 'limbeck-detection\[open3d\]'"):
        read_points(tmp_path / name)


def test_files_of_points_that_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros(8))
    np.save(tmp_path / "words.npy", np.full((2, 4), "a"))
    np.save(tmp_path / "objects.npy", np.array([[{}] * 4]), allow_pickle=True)
    (tmp_path / "a.txt").write_text("")
    for name, message in {
        "flat.npy": r"\(n, 4\) or wider, got \(8,\)",
        "words.npy": "must hold real numbers",
        "objects.npy": "damaged or no NumPy array",
        "a.txt": r"expected one of \.bin, \.npy, \.pcd, \.ply",
    }.items():
        with pytest.raises(DataError, match=message):
            read_points(tmp_path / name)
    with pytest.raises(DataError, match=r"written as \.bin or \.npy"):
        write_points(cloud(), tmp_path / "a.pcd")


# ---------------------------------------------------------------------- augmentation


def scene(root: Path) -> dict[str, Any]:
    sample = KittiFrames(root)[0]
    return {"points": sample["inputs"], **sample["targets"]}


@pytest.mark.parametrize("transform", [FlipScene(1.0), TurnScene(), ScaleScene(0.5, 2.0)])
def test_boxes_move_with_their_points(root: Path, transform: Any) -> None:
    before = scene(root)
    copies = {name: value.clone() for name, value in before.items()}
    after = transform(before)
    assert not torch.equal(after["points"], before["points"])
    for name, value in copies.items():
        assert torch.equal(before[name], value)  # nothing is changed in place
    # a float's width inside, points on a face stay inside too
    boxes = [s["boxes"] + torch.tensor([0, 0, -1e-4, 2e-4, 2e-4, 2e-4, 0]) for s in (before, after)]
    assert torch.equal(points_in_boxes(before["points"], boxes[0]), points_in_boxes(after["points"], boxes[1]))


def test_flip_is_undone_by_a_flip_and_draws_lots(root: Path) -> None:
    flip, first = FlipScene(1.0), scene(root)
    again = flip(flip(first))
    assert torch.equal(again["points"], first["points"])
    assert torch.equal(again["boxes"], first["boxes"])
    assert FlipScene(0.0)(first) is first


def test_range_drops_points_objects_and_nonsense() -> None:
    points = torch.tensor([[0.0, 0, 0, 0], [10, 0, 0, 0], [math.nan, 0, 0, 0], [5, 0, 0, math.inf], [9.9, 0, 0, 1]])
    boxes = torch.tensor([[5.0, 0, 0, 4, 2, 2, 7.0], [12.0, 0, 0, 4, 2, 2, 0]])
    kept = KeepInRange((0, -5, -1, 10, 5, 1))({"points": points, "boxes": boxes, "labels": torch.tensor([0, 1])})
    assert kept["points"][:, 0].tolist() == pytest.approx([0, 9.9])
    assert kept["labels"].tolist() == [0]
    assert float(kept["boxes"][0, 6]) == pytest.approx(7 - 2 * math.pi)
    with pytest.raises(ConfigError, match="three smallest and three greatest"):
        KeepInRange((0, 0, 0, 1, 1))


def test_shuffle_keeps_every_point(root: Path) -> None:
    before = scene(root)
    after = ShufflePoints()(before)
    assert not torch.equal(after["points"], before["points"])
    assert torch.equal(after["points"].sort(0).values, before["points"].sort(0).values)


def database(root: Path, capsys: pytest.CaptureFixture[str]) -> ObjectDatabase:
    assert main([str(root)]) == 0
    assert "2 Pedestrian, 0 Cyclist, 2 Car of 2 frames" in capsys.readouterr().out
    return ObjectDatabase.load(root / "object_database")


def test_database_holds_objects_with_their_points(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = database(root, capsys)
    assert objects.names == ("Car", "Pedestrian", "Car", "Pedestrian")
    assert objects.counts.tolist() == [10, 6, 10, 6]
    assert objects.difficulty.tolist() == [0, 1, 0, 1]
    assert torch.equal(objects.points_of(1), cloud()[10:16])


def test_pasted_objects_bring_their_points_and_collide_with_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database(root, capsys)
    ground = torch.tensor([[15.0, 0, -1, 0], [15, 0.1, -1, 0], [30, 0, -1.7, 0]])  # two stand where a car will
    empty = {"points": ground, "boxes": torch.zeros(0, 7), "labels": torch.zeros(0, dtype=torch.int64)}
    paste = PasteObjects(root, objects={"Car": 15, "Pedestrian": 15})
    filled = paste(empty)
    # both cars of the database stand at one place, so that one of them fits; so do the pedestrians
    assert sorted(filled["labels"].tolist()) == [0, 2]
    assert points_in_boxes(filled["points"], filled["boxes"]).sum(1).sort().values.tolist() == [6, 10]
    assert len(filled["points"]) == 16 + 1
    assert float(bev_iou(filled["boxes"], filled["boxes"]).fill_diagonal_(0).max()) == 0
    again = paste(filled)
    assert again["boxes"].shape == filled["boxes"].shape  # nothing more fits


def test_pasting_fills_up_to_a_number_and_leaves_out_what_has_too_few_points(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database(root, capsys)
    first = scene(root)
    assert PasteObjects(root, objects={"Car": 1})(first) is first
    assert PasteObjects(root, objects={"Pedestrian": 9}, min_points=7).pools["Pedestrian"].tolist() == []
    with pytest.raises(ConfigError, match=r"\['Bus'\] are to be pasted, but the classes are"):
        PasteObjects(root, objects={"Bus": 1})


def test_a_missing_database_says_how_to_make_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"python -m limbeck_detection\.data\.database ROOT"):
        PasteObjects(root)
    assert main([str(root / "nowhere")]) == 1
    assert "KITTI's layout has" in capsys.readouterr().err
