"""Inertial recordings from csv, npy and mat files, and evenly sampled windows of them.

What is wrong with a recording is said in a sentence: a gap, missing values, a sensor that fell silent, or a clip that
the recording does not cover.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from scipy.signal import resample_poly

from limbeck_core.errors import DataError, closest

Array = npt.NDArray[np.float64]
_UNITS = {"_ms": 1e-3, "_us": 1e-6, "_ns": 1e-9}
_SENSORS = (
    re.compile(r"^(acc|accl|accel|acceleration|accelerometer)[\W_]*([xyz])$"),
    re.compile(r"^(gyr|gyro|gyroscope|rot)[\W_]*([xyz])$"),
)


class Recording(NamedTuple):
    """What a sensor measured.

    Args:
        times: Of each sample, in seconds, rising, ``(L,)``.
        values: ``(L, C)``; NaN where a value is missing.
        channels: Names of the C columns, where the file has any.
    """

    times: Array
    values: Array
    channels: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Samples a second, from the median distance of neighbours."""
        return 1.0 / float(np.median(np.diff(self.times)))

    @property
    def end(self) -> float:
        """When the last sample ends."""
        return float(self.times[-1]) + 1.0 / self.rate


def read_imu(
    path: str | Path,
    *,
    rate: float | None = None,
    channels: Sequence[str | int] | None = None,
    key: str | None = None,
) -> Recording:
    """Read a recording.

    A csv file has a line of names. Its times stand in the column ``canonical_timestamp_ms``, or else in the first whose
    name speaks of time; ``_ms``, ``_us`` and ``_ns`` at its end give the unit, seconds otherwise. Rows without a time
    are dropped, rows are put in order, of two with one time the first stays. An npy file holds ``(L, C)``, a mat file
    an array of that shape.

    Args:
        path: The file.
        rate: Samples a second of a file without times.
        channels: Columns in the wanted order, by name (csv) or number. By default the three axes of the accelerometer
            and the three of the gyroscope where the names say which they are, all columns otherwise.
        key: Name of the array in a mat file that holds several.

    Raises:
        DataError: if the file is missing or damaged, has no times and no rate, fewer than two samples, or lacks a
            column.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no recording {path}: give the data set's root with --data-root or LIMBECK_DATA")
    ending = path.suffix.lower()
    if ending == ".csv":
        times, values, names = _read_csv(path)
    elif ending in (".npy", ".mat"):
        times, values, names = None, _read_array(path, key), ()
    else:
        raise DataError(f"{path} must be a csv, npy or mat file of inertial data, got the ending {ending!r}")
    if times is None:
        if rate is None or not rate > 0:
            raise DataError(f"{path} holds no times: say how many samples a second it has with rate, got {rate!r}")
        times = np.arange(len(values)) / rate
    known = np.isfinite(times)
    order = np.argsort(times[known], kind="stable")
    times, values = times[known][order], values[known][order]
    times, first = np.unique(times, return_index=True)
    values = values[first]
    if len(times) < 2:
        raise DataError(f"{path} holds {len(times)} sample(s) with a time, and a recording needs two or more")
    columns = _columns(path, names, values.shape[1], channels)
    return Recording(times, values[:, columns], tuple(names[c] for c in columns) if names else ())


def cut_window(
    recording: Recording,
    start: float,
    end: float,
    length: int,
    *,
    max_gap: float = 0.25,
    max_missing: float = 0.1,
) -> Array:
    """Return a stretch of a recording at evenly spaced moments.

    Samples are brought to an even distance by linear interpolation, then to ``length`` by a windowed sinc
    (``scipy.signal.resample_poly``), which lets nothing alias. Few missing values are interpolated; the published
    loader sets them to zero.

    Args:
        recording: The recording.
        start: First moment, in seconds on the recording's clock.
        end: Where the stretch ends.
        length: Samples L of the window.
        max_gap: Longest distance of two neighbours, in seconds.
        max_missing: Largest share of samples in which a value is missing.

    Returns:
        Shape ``(C, L)``.

    Raises:
        DataError: if the recording does not cover the stretch, has a gap or too many missing values in it, or every
            channel of it is constant.
        ValueError: if the stretch has no duration or ``length`` is below 2.
    """
    if not end > start or length < 2:
        raise ValueError(f"a window needs an end after its start and 2 samples or more, got {start}, {end}, {length}")
    step = 1.0 / recording.rate
    slack = max(max_gap, step)
    if start < recording.times[0] - slack or end > recording.end + slack:
        raise DataError(
            f"the recording covers {recording.times[0]:.2f} to {recording.end:.2f} s, the clip is {start:.2f} to "
            f"{end:.2f} s: the pair is out of step, or clocks differ (offset)"
        )
    inside = (recording.times >= start - step) & (recording.times <= end + step)
    times, values = recording.times[inside], recording.values[inside]
    edges = np.concatenate([[max(start, recording.times[0])], times, [min(end, recording.times[-1])]])
    gaps = np.diff(np.sort(edges))
    if len(times) < 2 or gaps.max() > slack:
        longest = int(gaps.argmax())
        raise DataError(
            f"the recording has a gap of {gaps[longest]:.2f} s at {np.sort(edges)[longest]:.2f} s (max_gap "
            f"{max_gap:g} s)"
        )
    missing = ~np.isfinite(values)
    share = float(missing.any(1).mean())
    if share > max_missing or missing.all(0).any():
        raise DataError(
            f"{100 * share:.0f} % of the samples from {start:.2f} to {end:.2f} s lack a value (max_missing "
            f"{100 * max_missing:.0f} %)"
        )
    if not np.ptp(np.where(missing, np.nanmean(values, 0), values), axis=0).any():
        raise DataError(f"every channel is constant from {start:.2f} to {end:.2f} s: the sensor fell silent")
    count = max(2, round((end - start) / step))
    moments = start + (np.arange(count) + 0.5) * (end - start) / count
    even = np.stack([np.interp(moments, times[~m], v[~m]) for v, m in zip(values.T, missing.T, strict=True)])
    if count == length:
        return even
    shared = math.gcd(length, count)
    resampled: Array = resample_poly(even, length // shared, count // shared, axis=1, padtype="line")
    return resampled


def _read_csv(path: Path) -> tuple[Array | None, Array, tuple[str, ...]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no readable csv file ({error}): copy it again from its source") from error
    if len(rows) < 2:
        raise DataError(f"{path} holds no samples: a csv file has a line of names and a line a sample")
    names = [name.strip().lower() for name in rows[0]]
    table = np.full((len(rows) - 1, len(names)), np.nan)
    for number, row in enumerate(rows[1:]):
        if len(row) != len(names):
            raise DataError(f"{path}, line {number + 2}, has {len(row)} values for {len(names)} names")
        try:
            table[number] = [float(cell) if cell.strip() else math.nan for cell in row]
        except ValueError as error:
            raise DataError(f"{path}, line {number + 2}, holds something that is no number ({error})") from error
    clocks = [name for name in names if "time" in name or name in ("t", "ts")]
    if not clocks:
        return None, table, tuple(names)
    clock = "canonical_timestamp_ms" if "canonical_timestamp_ms" in clocks else clocks[0]
    unit = next((factor for ending, factor in _UNITS.items() if clock.endswith(ending)), 1.0)
    kept = [number for number, name in enumerate(names) if name not in clocks]
    return table[:, names.index(clock)] * unit, table[:, kept], tuple(names[number] for number in kept)


def _read_array(path: Path, key: str | None) -> Array:
    try:
        if path.suffix.lower() == ".npy":
            found: Mapping[str, Any] = {"": np.load(path, allow_pickle=False)}
        else:
            found = loadmat(str(path))
    except (OSError, ValueError, EOFError, MatReadError, NotImplementedError) as error:
        raise DataError(f"{path} is no readable array file ({error}): copy it again from its source") from error
    arrays = {
        name: value for name, value in found.items() if getattr(value, "ndim", 0) == 2 and value.dtype.kind in "fiu"
    }
    if key is not None and key not in arrays:
        raise DataError(f"{path} has no array (samples, channels) called {key!r}: {closest(key, arrays)}")
    if key is None and len(arrays) != 1:
        raise DataError(f"{path} must hold one array (samples, channels), got {list(arrays) or 'none'}: say which: key")
    array: Array = np.asarray(arrays[key if key is not None else next(iter(arrays))], dtype=np.float64)
    return array


def _columns(path: Path, names: Sequence[str], width: int, channels: Sequence[str | int] | None) -> list[int]:
    if channels is None:
        found: dict[tuple[int, str], int] = {}
        for number, name in enumerate(names):
            for sensor, pattern in enumerate(_SENSORS):
                if match := pattern.match(name):
                    found.setdefault((sensor, match[2]), number)
        return [found[place] for place in sorted(found)] if len(found) == 6 else list(range(width))
    columns = []
    for channel in channels:
        if isinstance(channel, str):
            if channel.lower() not in names:
                raise DataError(f"{path} has no column {channel!r}: {closest(channel, names)}")
            columns.append(list(names).index(channel.lower()))
        elif 0 <= channel < width:
            columns.append(channel)
        else:
            raise DataError(f"{path} has {width} columns, numbered from 0, and column {channel} was asked for")
    return columns


__all__ = ["Recording", "cut_window", "read_imu"]
