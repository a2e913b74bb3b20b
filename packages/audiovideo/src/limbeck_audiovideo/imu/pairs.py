"""Synchronous clips of video and inertial data, listed in a table (Ego4D, EgoExo4D, UESTC-MMEA and others).

The table is a csv file with the columns ``video`` and ``imu`` (paths below the root), and where known ``start`` and
``end`` (seconds from the first frame), ``offset`` (when the video begins on the clock of the recording, in seconds),
``frame_rate`` (of a video that has no times of its own), ``label`` and ``subject``. Everything is checked before the
first step, and what is wrong is named together.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from limbeck_audiovideo.imu.pictures import clip_frames, video_span
from limbeck_audiovideo.imu.signals import Recording, cut_window, read_imu
from limbeck_core.errors import DataError, ShapeError, closest

Problems = Literal["refuse", "drop"]
COLUMNS = ("video", "imu", "start", "end", "offset", "frame_rate", "label", "subject")
_LISTED = 8  # problems that an error spells out


@dataclass(frozen=True)
class Clip:
    """A row of the table.

    Args:
        video: Path of the video.
        imu: Path of the recording.
        start: First moment, in seconds of the video.
        end: Where the clip ends; ``None`` is the end of the video.
        offset: When the video begins on the recording's clock, in seconds.
        label: Name of the activity; empty if unknown.
        subject: Who wears the sensor; empty if unknown.
        line: Of the table.
        frame_rate: Frames a second of a video that is an array or a folder; ``None`` is the data set's.
    """

    video: Path
    imu: Path
    start: float = 0.0
    end: float | None = None
    offset: float = 0.0
    label: str = ""
    subject: str = ""
    line: int = 0
    frame_rate: float | None = None


def read_table(path: str | Path, root: str | Path | None = None) -> list[Clip]:
    """Read a table of clips.

    Args:
        path: The csv file.
        root: Folder of the paths in it; by default the table's own.

    Raises:
        DataError: if the table is missing, lacks ``video`` or ``imu``, is empty, or holds a time that is none.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no table {path}: give the data set's root with --data-root or LIMBECK_DATA")
    folder = path.parent if root is None else Path(root)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        names = [name.strip() for name in reader.fieldnames or ()]
        for wanted in ("video", "imu"):
            if wanted not in names:
                raise DataError(f"{path} has no column {wanted!r}: {closest(wanted, names)}")
        clips = [_clip(row, folder, f"{path}, line {number}", number) for number, row in enumerate(reader, start=2)]
    if not clips:
        raise DataError(f"{path} lists no clip")
    return clips


def write_table(path: str | Path, clips: Iterable[Clip]) -> Path:
    """Write a table whose paths stand relative to its folder; return its path."""
    path = Path(path)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for clip in clips:
            files = [p.relative_to(path.parent).as_posix() for p in (clip.video, clip.imu)]
            end, rate = ("" if number is None else f"{number:.6g}" for number in (clip.end, clip.frame_rate))
            writer.writerow([*files, f"{clip.start:g}", end, f"{clip.offset:g}", rate, clip.label, clip.subject])
    return path


class ClipPairs(Dataset[dict[str, Any]]):
    """Windows of inertial data with the video of the same moments.

    An item has ``inputs``, the window ``(C, L)`` in float32 and the sensor's units; ``video``, bytes
    ``(T, 3, H, W)``; ``targets``, the index of the label among the sorted labels of the table, -1 if it has none;
    ``subjects``, the index of the subject likewise; and ``ids``. Windows are kept in memory (24 kB each for 6 x 1000).

    Args:
        table: The table, below ``root`` if relative.
        root: Folder of the data set.
        length: Samples L of a window.
        window: Length of a window in seconds: a clip is cut into as many as fit, without overlap, and the rest is
            dropped. With ``window=5`` and ``length=1000`` the data have 200 Hz. ``None`` stretches each clip to
            ``length`` samples, however long it is.
        rate: Samples a second of recordings without times.
        channels: See :func:`~limbeck_audiovideo.imu.signals.read_imu`.
        scale: Divides each channel, for example ``(16384,) * 3 + (16.4,) * 3`` for the raw numbers of UESTC-MMEA-CL.
        frames: Frames T of a clip, in the middles of T equal parts.
        size: Height and width of a frame.
        frame_rate: Frames a second of videos that are arrays or folders.
        value_range: See :func:`~limbeck_audiovideo.imu.pictures.clip_frames`.
        with_video: Leave ``video`` out of the items if false.
        keep_video: Keep decoded clips in memory, for small sets.
        subjects: Take these subjects alone.
        without: Leave these subjects out.
        shuffle_videos: Seed with which every window gets the video of another one: the control of an experiment.
        max_gap: Longest gap in a recording, in seconds.
        max_missing: Largest share of samples that lack a value.
        max_skew: Largest difference of the lengths of video and recording of a clip without an end, in seconds.
        on_problem: ``"refuse"`` raises and names all problems together; ``"drop"`` leaves such clips out and warns.

    Raises:
        DataError: as :func:`read_table`; if a clip has a problem, or none is left; if a subject is not in the table.
        ShapeError: if recordings have different numbers of channels.
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        table: str | Path = "pairs.csv",
        *,
        root: str | Path = ".",
        length: int = 1000,
        window: float | None = None,
        rate: float | None = None,
        channels: Sequence[str | int] | None = None,
        scale: Sequence[float] | None = None,
        frames: int = 16,
        size: tuple[int, int] = (112, 112),
        frame_rate: float = 30.0,
        value_range: tuple[float, float] = (0.0, 255.0),
        with_video: bool = True,
        keep_video: bool = False,
        subjects: Sequence[str] | None = None,
        without: Sequence[str] = (),
        shuffle_videos: int | None = None,
        max_gap: float = 0.25,
        max_missing: float = 0.1,
        max_skew: float = 0.5,
        on_problem: Problems = "refuse",
    ) -> None:
        if length < 2 or frames < 1 or min(size) < 1 or (window is not None and not window > 0):
            raise ValueError(
                "length must be 2 or more, frames and size 1 or more, window above 0, got "
                f"{length}, {frames}, {size} and {window}"
            )
        if on_problem not in get_args(Problems):
            raise ValueError(f"on_problem must be 'refuse' or 'drop', got {on_problem!r}")
        clips = read_table(Path(root) / table, root)
        self.classes = sorted({clip.label for clip in clips} - {""})
        self.people = sorted({clip.subject for clip in clips} - {""})
        chosen = _choose(clips, self.people, subjects, without)
        self.frames, self.size, self.frame_rate, self.value_range = frames, tuple(size), frame_rate, value_range
        self.with_video, self.keep_video = with_video, keep_video
        self._kept: dict[int, Tensor] = {}
        self.clips: list[Clip] = []
        found: list[np.ndarray] = []
        problems: list[str] = []
        recordings: dict[Path, Recording] = {}
        spans: dict[Path, float] = {}
        for clip in chosen:
            try:
                if clip.imu not in recordings:
                    recordings = {clip.imu: read_imu(clip.imu, rate=rate, channels=channels)}
                if with_video and clip.video not in spans:
                    spans = {clip.video: video_span(clip.video, frame_rate=clip.frame_rate or frame_rate)}
                whole = _whole(clip, recordings[clip.imu], spans.get(clip.video), max_skew)
            except DataError as error:
                problems.append(f"line {clip.line} ({clip.imu.name}): {error}")
                continue
            for part in _parts(whole, window):
                start, end = part.start + part.offset, (part.end or 0.0) + part.offset
                try:
                    values = cut_window(
                        recordings[clip.imu], start, end, length, max_gap=max_gap, max_missing=max_missing
                    )
                except DataError as error:
                    problems.append(f"line {clip.line} ({clip.imu.name}): {error}")
                    continue
                self.clips.append(part)
                found.append(values)
        _report(problems, Path(root) / table, on_problem, left=len(self.clips))
        self.windows = _joined(found, scale)
        self.partners = _partners(len(self.clips), shuffle_videos)

    @property
    def metainfo(self) -> dict[str, Any]:
        """Names of classes and subjects, for evaluators."""
        return {"classes": self.classes, "subjects": self.people}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = self.clips[index]
        item: dict[str, Any] = {
            "inputs": self.windows[index],
            "targets": self.classes.index(clip.label) if clip.label else -1,
            "subjects": self.people.index(clip.subject) if clip.subject else -1,
            "ids": index,
        }
        if self.with_video:
            item["video"] = self.video(self.partners[index])
        return item

    def video(self, index: int) -> Tensor:
        """Return the frames of a clip, ``(T, 3, H, W)``, bytes."""
        if index in self._kept:
            return self._kept[index]
        clip = self.clips[index]
        span = (clip.end or 0.0) - clip.start
        moments = clip.start + (torch.arange(self.frames, dtype=torch.float64) + 0.5) * span / self.frames
        height, width = self.size
        rate = clip.frame_rate or self.frame_rate
        clip_bytes = clip_frames(
            clip.video, moments, size=(height, width), frame_rate=rate, value_range=self.value_range
        )
        if self.keep_video:
            self._kept[index] = clip_bytes
        return clip_bytes


def _clip(row: dict[str, Any], folder: Path, where: str, line: int) -> Clip:
    cells = {str(name).strip(): (value or "").strip() for name, value in row.items() if isinstance(value, str)}
    numbers: dict[str, float | None] = {}
    for name in ("start", "end", "offset", "frame_rate"):
        text = cells.get(name, "")
        try:
            numbers[name] = float(text) if text else None
        except ValueError:
            numbers[name] = math.nan
        value = numbers[name]
        if value is not None and not math.isfinite(value):
            raise DataError(f"{where}: {name} must be a number or empty, got {text!r}")
    for name in ("video", "imu"):
        if not cells.get(name):
            raise DataError(f"{where}: {name} must be a path, got nothing")
    start, end = numbers["start"] or 0.0, numbers["end"]
    if start < 0 or (end is not None and not end > start):
        raise DataError(f"{where}: start must be 0 or more and end come after it, got {start:g} and {end}")
    return Clip(
        folder / cells["video"],
        folder / cells["imu"],
        start,
        end,
        numbers["offset"] or 0.0,
        cells.get("label", ""),
        cells.get("subject", ""),
        line,
        numbers["frame_rate"],
    )


def _choose(
    clips: Sequence[Clip], people: Sequence[str], subjects: Sequence[str] | None, without: Sequence[str]
) -> list[Clip]:
    for name in (*(subjects or ()), *without):
        if name not in people:
            raise DataError(f"the table has no subject {name!r}: {closest(name, people)}")
    return [c for c in clips if c.subject not in without and (subjects is None or c.subject in subjects)]


def _whole(clip: Clip, recording: Recording, span: float | None, max_skew: float) -> Clip:
    """The clip with an end, after comparing how long video and recording last."""
    measured = recording.end - clip.offset
    if clip.end is None:
        if span is not None and abs(measured - span) > max_skew:
            raise DataError(
                f"the video lasts {span:.2f} s and the recording {measured:.2f} s from the video's beginning: the pair "
                f"is out of step (max_skew {max_skew:g} s); give the clip a start and an end, or an offset"
            )
        end = measured if span is None else min(span, measured)
    else:
        end = clip.end
        if span is not None and end > span + max_skew:
            raise DataError(f"the clip ends at {end:.2f} s and its video lasts {span:.2f} s: the pair is out of step")
    if not end > clip.start:
        raise DataError(f"the clip begins at {clip.start:.2f} s, when the video or the recording is over ({end:.2f} s)")
    return replace(clip, end=end)


def _parts(clip: Clip, window: float | None) -> list[Clip]:
    if window is None:
        return [clip]
    count = int(((clip.end or 0.0) - clip.start) / window + 1e-6)
    starts = [clip.start + number * window for number in range(count)]
    return [replace(clip, start=start, end=start + window) for start in starts]


def _report(problems: Sequence[str], table: Path, on_problem: Problems, *, left: int) -> None:
    listed = "; ".join(problems[:_LISTED]) + (f"; and {len(problems) - _LISTED} more" if problems[_LISTED:] else "")
    if problems and on_problem == "refuse":
        raise DataError(
            f"{len(problems)} problem(s) in the clips of {table}: {listed}. Mend the table or the files, or leave such "
            "clips out with on_problem='drop'"
        )
    if not left:
        raise DataError(f"no window is left of the clips of {table}: {listed or 'none is as long as a window'}")
    if problems:
        warnings.warn(f"{len(problems)} window(s) or clip(s) of {table} were left out: {listed}", stacklevel=3)


def _joined(windows: Sequence[np.ndarray], scale: Sequence[float] | None) -> Tensor:
    widths = sorted({len(window) for window in windows})
    if len(widths) > 1:
        raise ShapeError(f"recordings have {widths} channels, and one number is needed: name the columns with channels")
    joined = np.stack(windows)
    if scale is not None:
        if len(scale) != joined.shape[1] or 0 in scale:
            raise ShapeError(
                f"scale must hold one number other than 0 for each of {joined.shape[1]} channels, got {scale}"
            )
        joined = joined / np.asarray(scale, dtype=np.float64)[:, None]
    return torch.from_numpy(joined).float()


def _partners(count: int, seed: int | None) -> list[int]:
    """Whose video each window gets: its own, or, shuffled, that of the next one in a random order."""
    if seed is None:
        return list(range(count))
    order = np.random.default_rng(seed).permutation(count)
    partners = np.empty(count, dtype=int)
    partners[order] = np.roll(order, 1)
    return [int(partner) for partner in partners]


__all__ = ["Clip", "ClipPairs", "read_table", "write_table"]
