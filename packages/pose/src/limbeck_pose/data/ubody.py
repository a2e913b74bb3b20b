"""UBody as it is downloaded, turned into what DWPose trains on: annotations in COCO-WholeBody's layout, and frames.

    python -m limbeck_pose.data.ubody DATA/UBody --frames --every 10

Lin et al., One-Stage 3D Whole-Body Mesh Recovery with Component Aware Transformer, arXiv:2303.16160. The download has
``videos/SCENE/CLIP.mp4``, ``annotations/SCENE/keypoint_annotation.json`` and ``splits/intra_scene_test_list.npy``. Each
scene gets ``train_annotations.json`` and ``val_annotations.json`` beside its annotations; ``--frames`` writes the
annotated frames to ``images/SCENE/CLIP/000001.png``, counted from 1 at 30 frames a second.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from limbeck_core.errors import DataError, LimbeckError
from limbeck_pose.data.people import PARTS, read_json, triples_of

RATE = 30.0  # frames a second by which annotations count
_SPLITS = {"intra_scene": "intra_scene_test_list.npy", "inter_scene": "inter_scene_test_list.npy"}
_ENDINGS = (".mp4", ".mkv", ".avi", ".mov", ".webm")


@dataclass(frozen=True)
class Converted:
    """What became of one scene.

    Args:
        scene: Its name.
        train: People for training.
        val: People of the split's test list.
        missing: People left out since their frame is not there.
    """

    scene: str
    train: int
    val: int
    missing: int


def convert(
    root: str | Path, *, split: str = "intra_scene", every: int = 1, frames: bool = False, scenes: Sequence[str] = ()
) -> list[Converted]:
    """Write annotation files of every scene, and its frames if asked to.

    Args:
        root: Folder of the download.
        split: ``"intra_scene"`` (other clips of the same scenes are for testing; the paper's) or ``"inter_scene"``.
        every: Keep every so many-th annotated frame of a clip; the paper takes every 10th. The configs of this package
            take every 10th image themselves (``every`` of the data set), so that 1 is right for them.
        frames: Write the frames that are kept from the videos.
        scenes: Names of the scenes; by default all that are there.

    Returns:
        What became of each scene, by name.

    Raises:
        DataError: if a file is missing, damaged or of another layout, or none of a scene's frames is there.
    """
    if split not in _SPLITS:
        raise DataError(f"split must be one of {', '.join(_SPLITS)}, got {split!r}")
    if every < 1:
        raise DataError(f"every must be 1 or more, got {every}")
    root = Path(root)
    held_out = _held_out(root / "splits" / _SPLITS[split])
    names = list(scenes) or sorted(p.parent.name for p in root.glob("annotations/*/keypoint_annotation.json"))
    if not names:
        raise DataError(f"there is no annotations/SCENE/keypoint_annotation.json in {root}: is it UBody's folder?")
    return [_convert_scene(root, scene, held_out, every, frames=frames) for scene in names]


def _held_out(path: Path) -> set[str]:
    if not path.is_file():
        raise DataError(f"there is no file {path}, which says which clips are for testing: download UBody's splits")
    try:
        return {str(name) for name in np.load(path, allow_pickle=False).ravel()}
    except ValueError as error:
        raise DataError(f"{path} holds no plain array of clip names ({error}): download it again") from error


def _convert_scene(root: Path, scene: str, held_out: set[str], every: int, *, frames: bool) -> Converted:
    folder = root / "annotations" / scene
    content = read_json(folder / "keypoint_annotation.json")
    if not isinstance(content, Mapping) or not {"images", "annotations"} <= content.keys():
        raise DataError(f"{folder / 'keypoint_annotation.json'} must have 'images' and 'annotations'")
    images = {image["id"]: PurePosixPath(image["file_name"].lstrip("/")) for image in content["images"]}
    kept = _every(images, every)
    if frames:
        for clip in sorted({file.parent for file in kept.values()}):
            numbers = {int(file.stem) for file in kept.values() if file.parent == clip}
            _write_frames(_video(root / "videos" / scene, clip.name), root / "images" / scene / clip, numbers)
    entries = {image["id"]: image for image in content["images"]}
    parts: dict[str, tuple[dict[Any, Any], list[Any]]] = {"train": ({}, []), "val": ({}, [])}
    missing = 0
    for annotation in content["annotations"]:
        number = annotation["image_id"]
        if number not in images:
            raise DataError(f"annotation {annotation.get('id')} of {scene} is of image {number}, which the file lacks")
        if number not in kept:
            continue
        file = images[number]
        if not (root / "images" / scene / file).is_file():
            missing += 1
            continue
        chosen, people = parts["val" if file.parent.name.partition("_Trim")[0] in held_out else "train"]
        chosen[number] = {**entries[number], "file_name": str(PurePosixPath(scene) / file)}
        people.append({**annotation, **_five_lists(annotation)})
    if missing and not any(people for _, people in parts.values()):
        raise DataError(
            f"none of the frames of {scene} is in {root / 'images' / scene}: write them with --frames, or with ffmpeg "
            "at 30 frames a second as CLIP/%06d.png"
        )
    for part, (chosen, people) in parts.items():
        whole = {
            "images": list(chosen.values()),
            "annotations": people,
            "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
        }
        target = folder / f"{part}_annotations.json"
        waiting = target.with_suffix(".tmp")
        waiting.write_text(json.dumps(whole), encoding="utf-8")
        os.replace(waiting, target)
    return Converted(scene, len(parts["train"][1]), len(parts["val"][1]), missing)


def _every(images: Mapping[Any, PurePosixPath], every: int) -> dict[Any, PurePosixPath]:
    """Every so many-th frame of each clip, by its number."""
    clips: dict[PurePosixPath, list[tuple[str, Any]]] = {}
    for number, file in images.items():
        clips.setdefault(file.parent, []).append((file.stem, number))
    return {number: images[number] for clip in clips.values() for _, number in sorted(clip, key=str)[::every]}


def _five_lists(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """The lists of COCO-WholeBody, whether the annotation has them or one list of 133 triples."""
    triples, start = triples_of(annotation), 0
    lists: dict[str, Any] = {}
    for name, count in PARTS:
        lists[name] = triples[start : start + count].ravel().tolist()
        start += count
    lists["num_keypoints"] = int((triples[: PARTS[0][1], 2] > 0).sum())
    return {**lists, "category_id": 1, "iscrowd": int(annotation.get("iscrowd", 0))}


def _video(folder: Path, clip: str) -> Path:
    found = [path for path in sorted(folder.rglob(f"{clip}.*")) if path.suffix.lower() in _ENDINGS]
    if not found:
        raise DataError(f"there is no video {clip} in {folder}: its frames are annotated, so the download is not whole")
    return found[0]


def _write_frames(video: Path, folder: Path, numbers: set[int]) -> None:
    """Write frames of a video, counted from 1 at 30 a second; a slower video shows frames more than once."""
    waiting = sorted(number for number in numbers if not (folder / f"{number:06d}.png").is_file())
    if not waiting:
        return
    folder.mkdir(parents=True, exist_ok=True)
    stream = cv2.VideoCapture(str(video))
    rate = stream.get(cv2.CAP_PROP_FPS)
    if not stream.isOpened() or rate <= 0:
        raise DataError(f"the video {video} cannot be opened: it is damaged, or OpenCV was built without its format")
    position, image = 0, None
    at, picture = stream.read()
    for number in waiting:
        # the last frame of the video that is shown at or before this one
        while at and round(position * RATE / rate) <= number - 1:
            image, position = picture, position + 1
            at, picture = stream.read()
        if image is None or (not at and round(position * RATE / rate) < number):
            raise DataError(
                f"the video {video} ends after {position} frames at {rate:g} a second, before frame {number} at "
                f"{RATE:g} a second, which is annotated: it is damaged, or another cut of it"
            )
        cv2.imwrite(str(folder / f"{number:06d}.png"), image)
    stream.release()


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the download")
    parser.add_argument("--split", choices=sorted(_SPLITS), default="intra_scene", help="default: intra_scene")
    parser.add_argument("--every", type=int, default=1, help="keep every so many-th annotated frame (default: 1)")
    parser.add_argument("--frames", action="store_true", help="write the frames from the videos")
    parser.add_argument("--scenes", nargs="+", default=[], metavar="SCENE", help="default: all that are there")
    options = parser.parse_args(arguments)
    try:
        done = convert(
            options.root, split=options.split, every=options.every, frames=options.frames, scenes=options.scenes
        )
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for scene in done:
        left = f", {scene.missing} left out (no frame)" if scene.missing else ""
        print(f"{scene.scene:<16}{scene.train:>8} people to train on,{scene.val:>8} held out{left}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
