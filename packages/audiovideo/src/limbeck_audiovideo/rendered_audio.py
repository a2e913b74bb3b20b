"""Sound events that the package renders itself: tones, chirps, noise and clicks, labelled by clip and in time.

    python -m limbeck_audiovideo.rendered_audio FOLDER --train 640 --test 320 --seed 0

``clips/train`` and ``clips/test`` hold clips of one event in noise, with the tables ``train.csv``, ``few.csv`` (some
clips of each class of the training part) and ``test.csv`` (``filename,label``). ``events/train`` and ``events/test``
hold longer recordings of one to three events, with strong labels in DESED's layout in ``events_train.tsv`` and
``events_test.tsv``. Class, not pitch or loudness, tells events apart: both are random. The same seed renders the same
files.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from limbeck_audiovideo.audio.front_end import RATE
from limbeck_audiovideo.audio.tables import Event, write_strong
from limbeck_core.errors import ConfigError

CLASSES = ("buzz", "clicks", "fall", "hiss", "rise", "tone", "tremolo", "vibrato")
CLIP_SECONDS, EVENT_SECONDS = 2.0, 4.0
_RAMP = 0.01  # seconds of attack and of decay

Waveform = npt.NDArray[np.float64]


def sound(label: str, rng: np.random.Generator, seconds: float, *, rate: int = RATE) -> Waveform:
    """Render one event with a root mean square of one.

    Args:
        label: One of :data:`CLASSES`.
        rng: Where pitch, rates of modulation and noise come from.
        seconds: Its length.
        rate: Samples a second.

    Returns:
        ``(samples,)``.

    Raises:
        ConfigError: if the class is not known, or the event is shorter than 50 ms.
    """
    if label not in CLASSES or seconds < 0.05:
        raise ConfigError(f"events are of {', '.join(CLASSES)} and 50 ms or longer, got {label!r}, {seconds} s")
    time = np.arange(round(seconds * rate)) / rate
    pitch, slow = 300 * 2 ** rng.uniform(0, 3), rng.uniform(4, 12)
    phase = 2 * np.pi * pitch * time
    if label == "tone":
        wave = np.sin(phase)
    elif label == "tremolo":
        wave = np.sin(phase) * (1 + 0.9 * np.sin(2 * np.pi * slow * time))
    elif label == "vibrato":
        wave = np.sin(phase + 0.08 * pitch / slow * np.sin(2 * np.pi * slow * time))
    elif label in ("rise", "fall"):
        bend = np.log(2) / seconds * (1 if label == "rise" else -1)  # an octave
        wave = np.sin(2 * np.pi * pitch * np.expm1(bend * time) / bend)
    elif label == "buzz":
        wave = np.sum([np.sin(n * phase / 4) / n for n in range(1, 9)], axis=0)
    elif label == "hiss":
        wave = _band(rng.standard_normal(len(time)), pitch * 0.8, pitch * 1.25, rate)
    else:
        since = np.mod(time, 1 / slow)
        wave = np.exp(-since * 80) * np.sin(2 * np.pi * pitch * since)
    ramp = np.minimum(1, np.minimum(np.arange(len(time)) + 1, np.arange(len(time), 0, -1)) / (_RAMP * rate))
    wave = wave * ramp
    shaped: Waveform = wave / np.sqrt(np.mean(wave**2))
    return shaped


def _band(noise: Waveform, low: float, high: float, rate: int) -> Waveform:
    spectrum = np.fft.rfft(noise)
    frequency = np.fft.rfftfreq(len(noise), 1 / rate)
    return np.fft.irfft(np.where((frequency >= low) & (frequency <= high), spectrum, 0), len(noise))


def recording(
    events: Sequence[Event], rng: np.random.Generator, seconds: float, *, rate: int = RATE
) -> npt.NDArray[np.float32]:
    """Render a recording: events at their times, each 3 to 18 dB above a noise floor, at a random loudness."""
    mixed = rng.standard_normal(round(seconds * rate))
    for event in events:
        wave = sound(event.label, rng, event.offset - event.onset, rate=rate) * 10 ** (rng.uniform(3, 18) / 20)
        start = round(event.onset * rate)
        stop = min(start + len(wave), len(mixed))
        mixed[start:stop] += wave[: stop - start]
    loud = 10 ** (rng.uniform(-26, -3) / 20) / np.abs(mixed).max()
    rendered: npt.NDArray[np.float32] = (mixed * loud).astype(np.float32)
    return rendered


def render(
    folder: str | Path, *, train: int = 640, test: int = 320, few: int = 5, events: int = 120, seed: int = 0
) -> Path:
    """Render the data set.

    Args:
        folder: Receives ``clips/``, ``events/`` and their tables.
        train: Number of training clips.
        test: Number of test clips.
        few: Clips of each class in ``few.csv``.
        events: Number of training recordings of several events; half as many are rendered for test.
        seed: Renders the same files each time; no two files share random numbers.

    Returns:
        The folder.

    Raises:
        ConfigError: if a number is out of range.
    """
    if min(train, test) < len(CLASSES) * few or few < 1 or events < 2 or seed < 0:
        raise ConfigError(
            f"rendering needs at least few={few} clips of each of {len(CLASSES)} classes in both parts, 2 recordings "
            f"of events and a seed of 0 or more, got train={train}, test={test}, events={events}, seed={seed}"
        )
    folder = Path(folder)
    for part, (name, count) in enumerate((("train", train), ("test", test))):
        rows = []
        for number in range(count):
            rng = np.random.default_rng([seed, part, number])
            label = CLASSES[number % len(CLASSES)]
            length = rng.uniform(0.8, CLIP_SECONDS)
            onset = rng.uniform(0, CLIP_SECONDS - length)
            file = f"{number:05d}.wav"
            _write(folder / "clips" / name / file, recording([Event(onset, onset + length, label)], rng, CLIP_SECONDS))
            rows.append((file, label))
        _table(folder / f"{name}.csv", rows)
        if name == "train":
            _table(folder / "few.csv", rows[: few * len(CLASSES)])
    for part, (name, count) in enumerate((("train", events), ("test", events // 2)), start=2):
        strong: dict[str, list[Event]] = {}
        for number in range(count):
            rng = np.random.default_rng([seed, part, number])
            file = f"{number:05d}.wav"
            strong[file] = _scene(rng)
            _write(folder / "events" / name / file, recording(strong[file], rng, EVENT_SECONDS))
        write_strong(folder / f"events_{name}.tsv", strong)
    return folder


def _scene(rng: np.random.Generator) -> list[Event]:
    found = []
    for label in rng.choice(CLASSES, rng.integers(1, 4), replace=False):
        length = rng.uniform(0.5, 1.5)
        onset = rng.uniform(0, EVENT_SECONDS - length)
        found.append(Event(round(onset, 3), round(onset + length, 3), str(label)))
    return sorted(found, key=lambda event: event.onset)


def _write(path: Path, waveform: npt.NDArray[np.float32]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, RATE, subtype="PCM_16")


def _table(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("filename", "label"))
        writer.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Render the data set that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=640)
    parser.add_argument("--test", type=int, default=320)
    parser.add_argument("--few", type=int, default=5)
    parser.add_argument("--events", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        folder = render(**vars(options))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.train + options.test} clips and {options.events * 3 // 2} recordings in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
