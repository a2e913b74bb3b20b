"""The video side of a pair: files and folders of frames by PyAV, arrays and depth maps by numpy and scipy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor
from torch.nn.functional import interpolate

from limbeck_audiovideo.video import frame_times, read_frames
from limbeck_core.errors import DataError

ARRAYS = (".npy", ".mat")


def video_span(path: str | Path, *, frame_rate: float = 30.0) -> float:
    """Return how long a video lasts, in seconds.

    Args:
        path: A video file or a folder of images (see :mod:`limbeck_audiovideo.video`), or an array: npy ``(T, H, W)``
            or ``(T, H, W, 3)``, mat ``(H, W, T)`` as depth maps are kept.
        frame_rate: Frames a second of arrays and folders.

    Raises:
        DataError: if it is missing, damaged or empty.
    """
    path = Path(path)
    if path.suffix.lower() in ARRAYS:
        return len(_array(path)) / frame_rate
    times = frame_times(path, frame_rate=frame_rate)
    step = float(times.diff().median()) if len(times) > 1 else 1.0 / frame_rate
    return float(times[-1]) + step


def clip_frames(
    path: str | Path,
    moments: Tensor,
    *,
    size: tuple[int, int],
    frame_rate: float = 30.0,
    value_range: tuple[float, float] = (0.0, 255.0),
) -> Tensor:
    """Return the frames on show at given moments as bytes ``(T, 3, H, W)``.

    Args:
        path: As :func:`video_span`.
        moments: Seconds from the first frame, rising.
        size: Height and width.
        frame_rate: Frames a second of arrays and folders.
        value_range: Values of an array that become 0 and 255, for example millimetres of a depth map.

    Raises:
        DataError: as :func:`video_span`.
    """
    path = Path(path)
    if path.suffix.lower() not in ARRAYS:
        frames = read_frames(path, moments, size=size, frame_rate=frame_rate)
        return frames.expand(-1, 3, -1, -1).contiguous()
    array = _array(path)
    chosen = array[(moments * frame_rate + 1e-6).long().clamp(0, len(array) - 1).numpy()]
    low, high = value_range
    pixels = torch.from_numpy(chosen.astype(np.float32)).sub_(low).mul_(255 / (high - low)).clamp_(0, 255)
    pixels = pixels.unsqueeze(1).expand(-1, 3, -1, -1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    resized = interpolate(pixels, size=size, mode="area") if pixels.shape[-2:] != size else pixels
    return resized.round().to(torch.uint8)


def _array(path: Path) -> Any:
    if not path.is_file():
        raise DataError(f"there is no video {path}: give the data set's root with --data-root or LIMBECK_DATA")
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, allow_pickle=False, mmap_mode="r")
        else:
            found = [value for value in loadmat(str(path)).values() if getattr(value, "ndim", 0) == 3]
            if len(found) != 1:
                raise DataError(f"{path} must hold one array (H, W, T) of frames, got {len(found)}")
            array = np.moveaxis(found[0], 2, 0)
    except (OSError, ValueError, EOFError, MatReadError, NotImplementedError) as error:
        raise DataError(f"{path} is no readable array of frames ({error}): copy it again from its source") from error
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != 3) or not len(array):
        raise DataError(f"{path} must hold frames (T, H, W) or (T, H, W, 3), one or more, got {array.shape}")
    return array


__all__ = ["clip_frames", "video_span"]
