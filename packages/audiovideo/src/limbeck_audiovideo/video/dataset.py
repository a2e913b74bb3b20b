"""Clips of the videos below a folder, with labels from the folders' names, from a table, or none."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from limbeck_audiovideo.video.clips import Clip
from limbeck_audiovideo.video.reading import VIDEO_ENDINGS, find_videos, frame_times, read_frames, read_video
from limbeck_core.build import build
from limbeck_core.errors import ConfigError, DataError, closest

_LISTED = 20  # damaged files named in one message
_THREADS = 8  # that look at files; most of the time goes into waiting for the disk


class Videos(Dataset[dict[str, Any]]):
    """One clip of each video.

    An item has ``inputs``, bytes ``(C, T, H, W)``; ``ids``, its number; and with labels ``targets``: a class index, or
    a mapping from column to class index where several columns are asked for. With ``split_column`` also ``split``, the
    text of that column.

    All files are looked at when the data set is made, and those that cannot be read are named together in one message,
    before any training.

    Args:
        root: Folder of the videos: files (mp4, avi, ...) and folders of images, at any depth.
        clip: Which moments of a video, a :class:`~limbeck_audiovideo.video.Clip` or its config.
        crop: Called with the frames, bytes ``(T, C, H, W)``; or its config. ``None`` leaves them.
        grey: One channel instead of three.
        labels: ``"folder"`` names the class by the first folder below ``root``; with a table, one of its columns, or
            several. ``None``: no labels.
        table: CSV file with a row a video (EchoNet-Dynamic's ``FileList.csv``), below ``root`` if relative.
        file_column: Column of the table with the path of the video, below ``videos``; the ending may be missing.
        videos: Folder below ``root`` that the paths of the table start from.
        where: Rows of the table to keep: column to text (``{"Split": "TRAIN"}``), or to a pair of numbers between
            which the value lies, both included (``{"EF": (50, 100)}``).
        split_column: Column of the table that says which part a video is of, for evaluators that train on one part and
            judge another.
        classes_from: Columns of numbers that become two classes: column to the least value of class 1.
        frame_rate: Frames a second of folders of images.
        check: ``"first"`` decodes the first frame of each file and reads the times of all; ``"all"`` decodes all.

    Raises:
        DataError: if files are missing or damaged (up to 20 are named), the table lacks a column, or no video is left.
        ConfigError: if the options do not fit together.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        clip: Clip | Mapping[str, Any],
        crop: Callable[[Tensor], Tensor] | Mapping[str, Any] | None = None,
        grey: bool = False,
        labels: str | Sequence[str] | None = None,
        table: str | Path | None = None,
        file_column: str = "file",
        videos: str | Path = "",
        where: Mapping[str, Any] | None = None,
        split_column: str | None = None,
        classes_from: Mapping[str, float] | None = None,
        frame_rate: float = 30.0,
        check: Literal["first", "all"] = "first",
    ) -> None:
        if check not in ("first", "all"):
            raise ConfigError(f"check must be 'first' or 'all', got {check!r}")
        if table is None and (where or classes_from or split_column or labels not in (None, "folder")):
            raise ConfigError(
                "where, classes_from, split_column and labels other than 'folder' need a table: give table=FILE.csv"
            )
        self.root = Path(root)
        self.clip: Clip = build(clip) if isinstance(clip, Mapping) else clip
        self.crop: Callable[[Tensor], Tensor] | None = build(crop) if isinstance(crop, Mapping) else crop
        self.grey = grey
        self.frame_rate = frame_rate
        self.columns = (labels,) if isinstance(labels, str) else tuple(labels or ())
        self.single = isinstance(labels, str)
        if table is None:
            self.paths = find_videos(self.root)
            rows = [{"folder": path.relative_to(self.root).parts[0]} for path in self.paths]
            everything = rows
            if labels == "folder" and any(path.parent == self.root for path in self.paths):
                raise DataError(f"labels='folder' needs each video in a folder of its class below {self.root}")
        else:
            asked = [file_column, *self.columns, *(where or {}), *([split_column] if split_column else [])]
            everything, rows = _rows(self.root / table, asked, where or {})
            self.paths = [_locate(self.root / videos, row[file_column]) for row in rows]
        if not self.paths:
            raise DataError(f"no video is left below {self.root}: check the path, and where={where}")
        self.split = [row[split_column] for row in rows] if split_column else None
        thresholds = dict(classes_from or {})
        self.classes = {c: _classes(everything, c, thresholds.get(c)) for c in self.columns}
        self.targets = {
            c: torch.tensor([_class_of(row[c], self.classes[c], thresholds.get(c)) for row in rows])
            for c in self.columns
        }
        self.durations = self._look_at_all(check)

    def _look_at_all(self, check: str) -> list[float]:
        """Return the times of the last frames, or name every file that cannot be read."""

        def look(path: Path) -> float | DataError:
            try:
                if check == "all":
                    return float(read_video(path, grey=True, size=(1, 1), frame_rate=self.frame_rate).times[-1])
                return float(frame_times(path, frame_rate=self.frame_rate)[-1])
            except DataError as error:
                return error

        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(look, self.paths))
        wrong = [item for item in found if isinstance(item, DataError)]
        if wrong:
            more = f"\n  and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
            listed = "".join(f"\n  {error}" for error in wrong[:_LISTED])
            raise DataError(f"{len(wrong)} of {len(found)} videos cannot be read:{listed}{more}")
        return [item for item in found if not isinstance(item, DataError)]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one clip; drawn from PyTorch's generator where the clip or the crop is random."""
        frames = read_frames(
            self.paths[index],
            self.clip.moments(self.durations[index]),
            grey=self.grey,
            frame_rate=self.frame_rate,
        )
        if self.crop is not None:
            frames = self.crop(frames)
        item: dict[str, Any] = {"inputs": frames.transpose(0, 1).contiguous(), "ids": index}
        if self.columns:
            targets = {column: int(values[index]) for column, values in self.targets.items()}
            item["targets"] = next(iter(targets.values())) if self.single else targets
        if self.split is not None:
            item["split"] = self.split[index]
        return item


def _rows(
    path: Path, columns: Sequence[str], where: Mapping[str, Any]
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return all rows of a table, and those that ``where`` keeps."""
    if not path.is_file():
        raise DataError(f"there is no table {path}: give the data set's root with --data-root or LIMBECK_DATA")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [{name: (value or "").strip() for name, value in row.items() if name} for row in reader]
            names = [name for name in reader.fieldnames or () if name]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no readable CSV ({error}): save it as UTF-8 with commas") from error
    for column in columns:
        if column not in names:
            raise DataError(f"{path} has no column {column!r}: {closest(column, names)}")
    return rows, [row for row in rows if all(_fits(row[name], wanted) for name, wanted in where.items())]


def _fits(value: str, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return value == wanted
    low, high = wanted
    return bool(value) and low <= float(value) <= high


def _locate(folder: Path, name: str) -> Path:
    """Find the file that a row names, with or without its ending."""
    path = folder / name
    if path.exists():
        return path
    return next((p for ending in VIDEO_ENDINGS if (p := Path(f"{path}{ending}")).is_file()), path)


def _classes(rows: Sequence[Mapping[str, str]], column: str, threshold: float | None) -> list[str]:
    if threshold is not None:
        return [f"{column} < {threshold:g}", f"{column} >= {threshold:g}"]
    return sorted({row[column] for row in rows})


def _class_of(value: str, classes: Sequence[str], threshold: float | None) -> int:
    if threshold is None:
        return list(classes).index(value)
    try:
        return int(float(value) >= threshold)
    except ValueError as error:
        raise DataError(f"classes_from needs numbers, and a row of the table holds {value!r}: filter it out") from error
