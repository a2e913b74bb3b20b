"""Read video files and folders of frames, by time.

A frame is shown from its own time until the next frame's, whatever the distances: with variable frame rate the frame of
a moment is the last one at or before it, never the one that a constant rate would predict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from torch import Tensor

from limbeck_core.checks import check_positive
from limbeck_core.errors import DataError, ShapeError

VIDEO_ENDINGS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_SLACK = 1e-6  # seconds; times are products of whole numbers and a fraction, and come out a little off
_SEEK_FROM = 2.0  # seconds into a file from which on looking for a key frame beats decoding all before it


class Video(NamedTuple):
    """Frames and their times.

    Args:
        frames: Bytes, ``(T, C, H, W)``; C is 3 (RGB) or 1 (grey).
        times: When each frame begins, in seconds from the first frame of the file, float64 ``(T,)``.
    """

    frames: Tensor
    times: Tensor


def read_video(
    path: str | Path,
    *,
    start: float = 0.0,
    stop: float | None = None,
    size: tuple[int, int] | None = None,
    grey: bool = False,
    frame_rate: float = 30.0,
) -> Video:
    """Read the frames that a video shows between two moments.

    Args:
        path: A video file, or a folder of images in natural order of their names (``frame2`` before ``frame10``).
        start: First moment, in seconds from the first frame, 0 or more.
        stop: Moment before which the last frame begins, in seconds; ``None`` reads to the end.
        size: Height and width to resize to, in pixels; ``None`` keeps the size of the file.
        grey: One channel instead of three.
        frame_rate: Frames a second of a folder of images, above 0; a video file has its own times.

    Returns:
        The frame on show at ``start`` and all that begin after it and before ``stop``. Their times may be unevenly
        spaced.

    Raises:
        DataError: if the file is missing, damaged, or has no video frame.
        ValueError: if ``start``, ``stop``, ``size`` or ``frame_rate`` is out of range.
    """
    if not (math.isfinite(start) and start >= 0):
        raise ValueError(f"start must be a number of seconds >= 0, got {start!r}")
    if stop is not None and not stop > start:
        raise ValueError(f"stop must come after start ({start} s), got {stop!r}")
    _check_size(size)
    moments: list[float] = []
    pictures: list[np.ndarray] = []
    last: tuple[float, av.VideoFrame] | None = None
    for moment, frame in _frames(Path(path), start, frame_rate):
        if stop is not None and moment >= stop - _SLACK and (pictures or last is not None):
            break
        if moment <= start + _SLACK:
            last = (moment, frame)  # still on show at the start, unless another one follows before it
            continue
        if last is not None:
            moments.append(last[0])
            pictures.append(_pixels(last[1], size, grey, path))
            last = None
        moments.append(moment)
        pictures.append(_pixels(frame, size, grey, path))
    if last is not None:
        moments.append(last[0])
        pictures.append(_pixels(last[1], size, grey, path))
    return Video(_stack(pictures, path), torch.tensor(moments, dtype=torch.float64))


def read_frames(
    path: str | Path,
    moments: Sequence[float] | Tensor,
    *,
    size: tuple[int, int] | None = None,
    grey: bool = False,
    frame_rate: float = 30.0,
) -> Tensor:
    """Read the frames on show at given moments; only those are kept in memory.

    Args:
        path: As :func:`read_video`.
        moments: Seconds from the first frame, in rising order. Moments past the end take the last frame, those before
            0 the first.
        size: As :func:`read_video`.
        grey: As :func:`read_video`.
        frame_rate: As :func:`read_video`.

    Returns:
        Bytes, ``(len(moments), C, H, W)``.

    Raises:
        DataError: as :func:`read_video`.
        ValueError: if there are no moments, or they do not rise.
    """
    wanted = [float(moment) for moment in moments]
    if not wanted or any(not math.isfinite(moment) for moment in wanted) or sorted(wanted) != wanted:
        raise ValueError(f"moments must be one or more finite numbers of seconds in rising order, got {wanted[:5]}")
    _check_size(size)
    pictures: list[np.ndarray] = []
    shown: av.VideoFrame | None = None
    for moment, frame in _frames(Path(path), max(wanted[0], 0.0), frame_rate):
        due = 0
        while shown is not None and len(pictures) + due < len(wanted) and wanted[len(pictures) + due] < moment - _SLACK:
            due += 1
        if due and shown is not None:
            pictures += [_pixels(shown, size, grey, path)] * due
        if len(pictures) == len(wanted):
            break
        shown = frame
    if len(pictures) < len(wanted) and shown is not None:
        pictures += [_pixels(shown, size, grey, path)] * (len(wanted) - len(pictures))
    return _stack(pictures, path)


def frame_times(path: str | Path, *, frame_rate: float = 30.0) -> Tensor:
    """Return when each frame begins, without decoding any but the first.

    Args:
        path: As :func:`read_video`.
        frame_rate: As :func:`read_video`.

    Returns:
        Seconds from the first frame, rising, float64 ``(T,)``.

    Raises:
        DataError: if the file is missing, damaged, or has no video frame.
    """
    path = Path(path)
    if path.is_dir():
        return torch.arange(len(_images(path)), dtype=torch.float64) / _rate(frame_rate)
    with _open(path) as container:
        stream = container.streams.video[0]
        try:
            first = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise _damaged(path, error) from error
    if first is None:
        raise DataError(f"{path} has a video track without a frame: leave it out of the data set")
    found: list[float] = []
    with _open(path) as container:
        stream = container.streams.video[0]
        step = 1.0 / _own_rate(stream)
        try:
            for packet in container.demux(stream):
                stamp = packet.pts if packet.pts is not None else packet.dts
                if packet.size and stamp is not None and packet.time_base is not None:
                    found.append(float(stamp * packet.time_base))
                elif packet.size:
                    found.append(len(found) * step)
        except av.FFmpegError as error:
            raise _damaged(path, error) from error
    times = torch.tensor(sorted(found), dtype=torch.float64)
    return times - times[0]


def find_videos(folder: str | Path) -> list[Path]:
    """Return the video files below a folder, and the folders below it that hold images, in natural order.

    Raises:
        DataError: if the folder is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give the data set's root with --data-root or LIMBECK_DATA")
    found: set[Path] = set()
    for path in folder.rglob("*"):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in VIDEO_ENDINGS and path.is_file():
            found.add(path)
        elif path.suffix.lower() in IMAGE_ENDINGS and path.is_file() and path.parent != folder:
            found.add(path.parent)
    return sorted(found, key=lambda path: _natural(str(path.relative_to(folder))))


def write_video(
    path: str | Path, frames: Tensor, times: Tensor | Sequence[float] | float = 30.0, *, codec: str = "mpeg4"
) -> Path:
    """Write a video file, at a constant rate or with a time for each frame.

    Args:
        path: The file; its ending chooses the container. ``.avi`` knows constant rates only.
        frames: Bytes, ``(T, C, H, W)``, C 1 or 3.
        times: When each frame begins, seconds, rising; or one number, frames a second.
        codec: A codec of PyAV's build that takes planar yuv, such as ``"mpeg4"`` or ``"mjpeg"``.

    Returns:
        The path.

    Raises:
        ShapeError: if ``frames`` are no bytes of that shape.
        ValueError: if the times do not rise.
    """
    if frames.ndim != 4 or frames.shape[1] not in (1, 3) or frames.dtype != torch.uint8 or not len(frames):
        raise ShapeError(f"frames must be bytes (T, C, H, W) with C 1 or 3, got {frames.dtype} {tuple(frames.shape)}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(times).limit_denominator(1001) if isinstance(times, (int, float)) else None
    base = 1 / rate if rate is not None else Fraction(1, 1000)  # milliseconds are exact enough for cameras
    stamps = list(range(len(frames))) if isinstance(times, (int, float)) else [round(float(t) / base) for t in times]
    if len(stamps) != len(frames) or any(b <= a for a, b in pairwise(stamps)):
        raise ValueError(f"times must rise by a millisecond or more, one a frame ({len(frames)}), got {len(stamps)}")
    with av.open(str(path), "w") as container:
        # one quality throughout: left alone, an encoder saves on later frames what it spent on the first
        stream = container.add_stream(codec, rate=rate or Fraction(1000), options={"qmin": "2", "qmax": "2"})
        stream.height, stream.width = frames.shape[-2:]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = base
        for stamp, picture in zip(stamps, frames, strict=True):
            pixels = picture.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = stamp, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _frames(path: Path, start: float, frame_rate: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield times and decoded frames, beginning at or before ``start``."""
    if path.is_dir():
        rate = _rate(frame_rate)
        files = _images(path)
        first = min(int(start * rate + _SLACK), len(files) - 1)
        for number, file in enumerate(files[first:], first):
            yield number / rate, _image(file)
        return
    yield from _decoded(path, start)


def _decoded(path: Path, start: float) -> Iterator[tuple[float, av.VideoFrame]]:
    with _open(path) as container:
        stream = container.streams.video[0]
        rate = _own_rate(stream)
        try:
            frames = container.decode(stream)
            head = next(frames, None)
            if head is None:
                raise DataError(f"{path} has a video track without a frame: leave it out of the data set")
            origin = 0.0 if head.time is None else float(head.time)
            if start >= _SEEK_FROM and head.time is not None:
                frames, head = _jump(container, stream, origin + start)
            number = 0
            while head is not None:
                yield (number / rate if head.time is None else float(head.time) - origin), head
                number += 1
                head = next(frames, None)
        except av.FFmpegError as error:
            raise _damaged(path, error) from error


def _jump(
    container: av.container.InputContainer, stream: av.VideoStream, moment: float
) -> tuple[Iterator[av.VideoFrame], av.VideoFrame | None]:
    """Go on decoding at the last key frame at or before a moment, in the file's own seconds; else at the beginning."""
    for goal in (moment, 0.0):
        offset = int(goal / stream.time_base) if stream.time_base is not None else 0
        container.seek(offset, stream=stream, backward=True, any_frame=False)
        frames = container.decode(stream)
        head = next(frames, None)
        if head is not None and head.time is not None and float(head.time) <= moment + _SLACK:
            break
    return frames, head


def _open(path: Path) -> av.container.InputContainer:
    if not path.is_file():
        raise DataError(f"there is no video {path}: give the data set's root with --data-root or LIMBECK_DATA")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise _damaged(path, error) from error
    if not container.streams.video:
        container.close()
        raise DataError(f"{path} has no video track: leave it out of the data set")
    return container


def _damaged(path: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or str(error)
    return DataError(f"{path} is no readable video ({reason}): copy it again from its source, or leave it out")


def _image(path: Path) -> av.VideoFrame:
    with _open(path) as container:
        try:
            frame: av.VideoFrame | None = next(container.decode(container.streams.video[0]), None)
        except av.FFmpegError as error:
            raise _damaged(path, error) from error
    if frame is None:
        raise DataError(f"{path} is no readable image: copy it again from its source")
    return frame


def _images(folder: Path) -> list[Path]:
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_ENDINGS and not p.name.startswith(".")]
    if not files:
        raise DataError(f"{folder} holds no image ({', '.join(IMAGE_ENDINGS)}): leave it out of the data set")
    return sorted(files, key=lambda path: _natural(path.name))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key under which ``frame2`` comes before ``frame10``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in re.split(r"(\d+)", name) if part]


def _own_rate(stream: av.VideoStream) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else 30.0


def _rate(frame_rate: float) -> float:
    check_positive(frame_rate, "frame_rate")
    return frame_rate


def _pixels(frame: av.VideoFrame, size: tuple[int, int] | None, grey: bool, path: str | Path) -> np.ndarray:
    height, width = size if size is not None else (frame.height, frame.width)
    try:
        picture = frame.to_ndarray(width=width, height=height, format="gray" if grey else "rgb24")
    except (av.FFmpegError, ValueError) as error:
        raise _damaged(Path(path), error) from error
    return picture[None] if grey else picture.transpose(2, 0, 1)


def _stack(pictures: Sequence[np.ndarray], path: str | Path) -> Tensor:
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1:
        raise DataError(f"{path} changes its size from frame to frame {sorted(shapes)}: read it with size=(H, W)")
    return torch.from_numpy(np.ascontiguousarray(np.stack(pictures)))


def _check_size(size: tuple[int, int] | None) -> None:
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size must be height and width in pixels, 1 or more, got {size!r}")
