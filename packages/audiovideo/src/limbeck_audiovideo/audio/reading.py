"""Audio files as mono waveforms at one rate: any format of libsndfile, any rate, any number of channels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from scipy.signal import resample_poly

from limbeck_audiovideo.audio.front_end import RATE
from limbeck_core.errors import DataError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
_NAMED = 10  # damaged files that a message names

Waveform = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AudioFile:
    """What the head of a file says.

    Args:
        path: The file.
        rate: Samples a second.
        samples: Samples of one channel.
        channels: Number of channels.
    """

    path: Path
    rate: int
    samples: int
    channels: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.rate


def describe_audio(path: str | Path) -> AudioFile:
    """Read the head of a file.

    Raises:
        DataError: if the file is missing, empty, or no audio file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no audio file {path}")
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise DataError(f"{path} is no readable audio file ({error})") from error
    if info.frames < 1 or info.samplerate < 1:
        raise DataError(f"{path} holds no sample")
    return AudioFile(path, int(info.samplerate), int(info.frames), int(info.channels))


def describe_all(paths: Iterable[str | Path]) -> list[AudioFile]:
    """Read the heads of many files, and name all that cannot be used in one error, before any training.

    Raises:
        DataError: if there is no file at all, or some are missing, empty or damaged.
    """
    found, damaged = [], []
    for path in paths:
        try:
            found.append(describe_audio(path))
        except DataError as error:
            damaged.append(str(error))
    if damaged:
        shown = "; ".join(damaged[:_NAMED])
        more = f"; and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        raise DataError(
            f"{len(damaged)} of {len(damaged) + len(found)} audio files cannot be used: {shown}{more}. Mend them, or "
            "take them out of the folder or table"
        )
    if not found:
        raise DataError("no audio file was named: check the folder, the table and its filters")
    return found


def read_audio(path: str | Path, *, rate: int = RATE, start: float = 0.0, seconds: float | None = None) -> Waveform:
    """Read a part of a file as a mono waveform.

    Only that part is read from the disk. Channels are averaged; another rate is changed by a polyphase filter.

    Args:
        path: The file.
        rate: Samples a second of the result.
        start: Where the part begins, in seconds.
        seconds: Its length; ``None`` reads to the end. The file may end before.

    Returns:
        Samples in [-1, 1], float32, ``(S,)``; fewer than asked, or none, where the file ends.

    Raises:
        DataError: if the file is missing, damaged, or holds NaN or infinity.
        ValueError: if ``start`` or ``seconds`` is negative.
    """
    if start < 0 or (seconds is not None and seconds < 0):
        raise ValueError(f"start and seconds must not be negative, got {start} and {seconds}")
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no audio file {path}")
    try:
        with soundfile.SoundFile(str(path)) as file:
            first = min(round(start * file.samplerate), file.frames)
            file.seek(first)
            count = -1 if seconds is None else math.ceil(seconds * file.samplerate)
            channels, own = file.read(count, dtype="float32", always_2d=True), int(file.samplerate)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read ({error}): mend it, or take it out") from error
    mono: Waveform = channels[:, 0] if channels.shape[1] == 1 else channels.mean(1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise DataError(f"{path} holds NaN or infinity among its samples: write it again")
    changed = resample(mono, own, rate)
    return changed if seconds is None else changed[: round(seconds * rate)]


def resample(waveform: Waveform, own: int, wanted: int) -> Waveform:
    """Change the rate of a waveform by a polyphase filter.

    Args:
        waveform: Samples, ``(S,)``.
        own: Samples a second that it has.
        wanted: Samples a second that it gets.

    Returns:
        Float32, ``(ceil(S * wanted / own),)``.
    """
    if own == wanted or not len(waveform):
        return np.ascontiguousarray(waveform, dtype=np.float32)
    common = math.gcd(own, wanted)
    changed: Waveform = resample_poly(waveform, wanted // common, own // common).astype(np.float32)
    return changed


def fit(waveform: Waveform, samples: int) -> tuple[Waveform, int]:
    """Cut a waveform, or extend it by zeros at its end, to a number of samples.

    Returns:
        The waveform, ``(samples,)``, and how many of them are its own.
    """
    own = min(len(waveform), samples)
    if len(waveform) >= samples:
        return np.ascontiguousarray(waveform[:samples]), own
    return np.pad(waveform, (0, samples - own)), own
