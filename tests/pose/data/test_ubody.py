"""UBody's download turned into annotation files and frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from limbeck_core.errors import DataError
from limbeck_pose.data import People
from limbeck_pose.data.people import PARTS
from limbeck_pose.data.ubody import convert, main
from limbeck_pose.simcc import SimCC

FRAMES = 8


def video(path: Path, rate: float) -> None:
    """Frame i of the video has brightness 30 * i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (64, 48))
    for number in range(FRAMES):
        stream.write(np.full((48, 64, 3), 30 * number, np.uint8))
    stream.release()


def person(number: int, *, lists: bool = True) -> dict[str, Any]:
    triples = np.column_stack([np.random.default_rng(number).uniform(5, 40, (133, 2)), np.full(133, 2)])
    triples[100:, 2] = 0
    base = {"id": number, "image_id": number, "bbox": [4, 4, 40, 40], "area": 1600}
    if not lists:
        return {**base, "keypoints": triples.ravel().tolist()}
    start = 0
    for name, count in PARTS:
        base[name] = triples[start : start + count].ravel().tolist()
        start += count
    return base


def download(root: Path, *, clips: tuple[str, ...] = ("talk", "held_Trim1"), rate: float = 30.0) -> Path:
    images, annotations = [], []
    for clip in clips:
        video(root / "videos" / "Speech" / f"{clip}.avi", rate)
        for frame in (1, 3, 4):
            number = len(images)
            images.append({"id": number, "file_name": f"/{clip}/{frame:06d}.png", "width": 64, "height": 48})
            annotations.append(person(number, lists=number % 2 == 0))
    folder = root / "annotations" / "Speech"
    folder.mkdir(parents=True)
    (folder / "keypoint_annotation.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (root / "splits").mkdir()
    np.save(root / "splits" / "intra_scene_test_list.npy", np.array(["held"]))
    return root


def test_a_download_becomes_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = download(tmp_path / "UBody")
    assert main([str(root), "--frames"]) == 0
    assert capsys.readouterr().out.split() == ["Speech", "3", "people", "to", "train", "on,", "3", "held", "out"]
    for part, clip in (("train", "talk"), ("val", "held_Trim1")):
        people = People(
            f"annotations/Speech/{part}_annotations.json", images="images", root=root, codec=SimCC((64, 64))
        )
        assert [person.file.relative_to(root).as_posix() for person in people.people] == [
            f"images/Speech/{clip}/{frame:06d}.png" for frame in (1, 3, 4)
        ]
        assert people[0]["person"]["visible"].sum() == 100
    shown = [cv2.imread(str(person.file)).mean() for person in people.people]
    assert np.allclose(shown, [0, 60, 90], atol=4), "frames are counted from 1"
    written = json.loads((root / "annotations" / "Speech" / "train_annotations.json").read_text())
    assert {name: len(written["annotations"][1][name]) for name, _ in PARTS} == {n: 3 * c for n, c in PARTS}


def test_slow_videos_are_counted_at_30_frames(tmp_path: Path) -> None:
    root = download(tmp_path, clips=("talk",), rate=15.0)
    convert(root, frames=True)
    frames = root / "images" / "Speech" / "talk"
    assert np.allclose([cv2.imread(str(frames / f"{n:06d}.png")).mean() for n in (1, 3, 4)], [0, 30, 30], atol=4)


def test_every_second_frame(tmp_path: Path) -> None:
    done = convert(download(tmp_path), frames=True, every=2)
    assert (done[0].train, done[0].val, done[0].missing) == (2, 2, 0)
    assert len(list(tmp_path.rglob("*.png"))) == 4


def test_frames_that_are_not_there_are_counted(tmp_path: Path) -> None:
    root = download(tmp_path)
    with pytest.raises(DataError, match=r"none of the frames of Speech is in .*write them with --frames"):
        convert(root)
    convert(root, frames=True)
    (root / "images" / "Speech" / "talk" / "000003.png").unlink()
    assert convert(root)[0].missing == 1


def break_split(root: Path) -> None:
    np.save(root / "splits" / "intra_scene_test_list.npy", np.array([{"a": 1}], dtype=object))


def shorten(root: Path) -> None:
    path = root / "annotations" / "Speech" / "keypoint_annotation.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = "/talk/000099.png"
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda root: (root / "splits" / "intra_scene_test_list.npy").unlink(), "download UBody's splits"),
        (break_split, "holds no plain array of clip names"),
        (lambda root: (root / "videos" / "Speech" / "talk.avi").unlink(), "there is no video talk in"),
        (lambda root: (root / "videos" / "Speech" / "talk.avi").write_bytes(b"x"), "cannot be opened"),
        (shorten, "ends after 8 frames at 30 a second, before frame 99"),
        (lambda root: (root / "annotations" / "Speech" / "keypoint_annotation.json").unlink(), "is it UBody's folder"),
    ],
)
def test_damage_is_told(break_it: Any, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = download(tmp_path)
    break_it(root)
    assert main([str(root), "--frames"]) == 1
    assert sentence in capsys.readouterr().err
