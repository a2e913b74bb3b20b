"""Data sets of recordings: clips with labels or without, and clips whose events are labelled in time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from limbeck_audiovideo.audio.front_end import RATE
from limbeck_audiovideo.audio.reading import AudioFile, describe_all, fit, read_audio
from limbeck_audiovideo.audio.tables import Event, class_list, read_folder, read_strong, read_table
from limbeck_core.build import build
from limbeck_core.checks import check_positive
from limbeck_core.errors import ConfigError, DataError, closest

TOKEN_SECONDS = 0.04


class Recordings(Dataset[dict[str, Any]]):
    """Clips of recordings, of one length.

    An item has ``inputs``: ``waveform``, float32 ``(samples,)`` or ``(2, samples)`` for two crops, extended by zeros
    where the recording is shorter, and ``length``, how many samples are its own, an integer or ``(2,)``. Labelled
    recordings have ``targets`` as well: a class index, or with ``several`` zeros and ones ``(C,)``.

    All files are looked into once, at construction; those that cannot be used are named together.

    Args:
        root: Folder of the data set.
        audio: Folder of the recordings, below ``root``.
        table: Table of the recordings, below ``root``; ``None`` takes the folder as it is, the folder that a file lies
            in being its class.
        columns: Options of :func:`~limbeck_audiovideo.audio.tables.read_table`, such as ``file_column``,
            ``label_column``, ``separator``, ``where``, ``suffix``.
        classes: Names of the classes, in order; by default those that occur, sorted.
        labelled: Whether labels are read; ``False`` gives no ``targets``.
        several: Whether a clip may have several labels.
        seconds: Length of a clip.
        rate: Samples a second.
        crops: 1 or 2 crops of a recording; two are drawn independently.
        random: Whether crops lie anywhere in the recording; otherwise they begin with it.

    Raises:
        DataError: if the folder or table cannot be used, or files are missing, empty or damaged, all of them named.
        ConfigError: if ``crops`` is neither 1 nor 2, or two crops would be the same.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        audio: str | Path = ".",
        table: str | Path | None = None,
        columns: Mapping[str, Any] | None = None,
        classes: Sequence[str] | None = None,
        labelled: bool = True,
        several: bool = False,
        seconds: float = 10.0,
        rate: int = RATE,
        crops: int = 1,
        random: bool = False,
    ) -> None:
        check_positive(seconds, "seconds")
        if crops not in (1, 2) or (crops == 2 and not random):
            raise ConfigError(f"crops must be 1, or 2 with random=True, got crops={crops}, random={random}")
        folder = Path(root) / audio
        entries = (
            read_folder(folder) if table is None else read_table(Path(root) / table, audio=folder, **(columns or {}))
        )
        if table is None and columns:
            raise ConfigError("columns say how a table is read, and no table is named")
        self.files: list[AudioFile] = describe_all(entry.path for entry in entries)
        self.seconds, self.rate, self.crops, self.random, self.several = seconds, rate, crops, random, several
        self.samples = round(seconds * rate)
        self.classes = class_list(entries, classes) if labelled else []
        self.targets: list[Tensor] | None = None
        if labelled:
            self.targets = [self._target(entry.labels, entry.path) for entry in entries]

    def _target(self, labels: tuple[str, ...] | None, path: Path) -> Tensor:
        indices = [self.classes.index(label) for label in labels or ()]
        if self.several:
            target = torch.zeros(len(self.classes))
            target[indices] = 1
            return target
        if len(indices) != 1:
            raise DataError(
                f"{path} has {len(indices)} labels where one was expected: say several=True, or labelled=False to "
                "train without them"
            )
        return torch.tensor(indices[0])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clips = [self._clip(self.files[index]) for _ in range(self.crops)]
        waveforms = np.stack([waveform for waveform, _ in clips])
        lengths = torch.tensor([length for _, length in clips])
        inputs = {"waveform": torch.from_numpy(waveforms), "length": lengths}
        if self.crops == 1:
            inputs = {name: value[0] for name, value in inputs.items()}
        item: dict[str, Any] = {"inputs": inputs}
        if self.targets is not None:
            item["targets"] = self.targets[index]
        return item

    def _clip(self, file: AudioFile) -> tuple[Any, int]:
        room = max(file.seconds - self.seconds, 0.0)
        start = room * float(torch.rand(())) if self.random else 0.0
        return fit(read_audio(file.path, rate=self.rate, start=start, seconds=self.seconds), self.samples)


class SoundEvents(Dataset[dict[str, Any]]):
    """Recordings whose sound events are labelled: strongly (class, onset, offset), or weakly (classes of the clip).

    An item has ``inputs`` as :class:`Recordings`, ``targets`` and ``recording``, the name of its file. ``targets``
    holds ``strong``, zeros and ones ``(tokens, C)`` for 40 ms each; ``weak``, zeros and ones ``(C,)``; and
    ``strong_known``, whether ``strong`` is the truth. A token belongs to an event that covers its middle; an event
    that covers none belongs to the token in which its own middle lies.

    Args:
        root: Folder of the data set.
        audio: Folder of the recordings, below ``root``.
        strong: Table of strong labels, below ``root``: a tsv file ``filename onset offset event_label``.
        weak: Table of weak labels instead: ``filename event_labels``, comma between labels.
        classes: Names of the classes, in order; by default those that occur, sorted.
        seconds: Length of a clip; recordings are cut to it, or extended by zeros.
        rate: Samples a second.

    Raises:
        DataError: as :class:`Recordings`.
        ConfigError: unless one of ``strong`` and ``weak`` is named.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        audio: str | Path = ".",
        strong: str | Path | None = None,
        weak: str | Path | None = None,
        classes: Sequence[str] | None = None,
        seconds: float = 10.0,
        rate: int = RATE,
    ) -> None:
        check_positive(seconds, "seconds")
        if (strong is None) == (weak is None):
            raise ConfigError("name one table of labels: strong, or weak")
        folder = Path(root) / audio
        self.events: dict[str, list[Event]] = {}
        labels: dict[str, set[str]]
        if strong is not None:
            table = read_strong(Path(root) / strong)
            self.events, found = table.events, table.labels
            labels = {name: {event.label for event in events} for name, events in table.events.items()}
        else:
            entries = read_table(Path(root) / str(weak), audio=folder, label_column="event_labels", separator=",")
            found = class_list(entries)
            labels = {str(entry.path.relative_to(folder)): set(entry.labels or ()) for entry in entries}
        self.classes = found if classes is None else list(classes)
        strangers = sorted(set(found) - set(self.classes))
        if strangers:
            raise DataError(f"{strong or weak} has the label {strangers[0]!r}: {closest(strangers[0], self.classes)}")
        self.names = sorted(labels)
        self.labels = labels
        self.files = describe_all(folder / name for name in self.names)
        self.seconds, self.rate = seconds, rate
        self.samples = round(seconds * rate)
        self.tokens = (self.samples // (rate // 100) + 1) // 4
        self.strong_known = strong is not None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        clip = read_audio(self.files[index].path, rate=self.rate, seconds=self.seconds)
        waveform, length = fit(clip, self.samples)
        weak = torch.tensor([float(label in self.labels[name]) for label in self.classes])
        strong = torch.zeros(self.tokens, len(self.classes))
        if self.strong_known:
            strong = token_labels(self.events[name], self.classes, self.tokens)
            weak = strong.amax(0)  # of the part that is heard
        targets = {"strong": strong, "weak": weak, "strong_known": torch.tensor(self.strong_known)}
        return {
            "inputs": {"waveform": torch.from_numpy(waveform), "length": torch.tensor(length)},
            "targets": targets,
            "recording": name,
        }


def joined_events(parts: Sequence[SoundEvents | Mapping[str, Any]]) -> ConcatDataset[dict[str, Any]]:
    """Return several data sets as one, such as recordings with strong labels and recordings with weak ones.

    Args:
        parts: Data sets of the same classes and length, or configs of them.

    Raises:
        DataError: if they differ in classes or length.
    """
    built: list[SoundEvents] = [build(part) if isinstance(part, Mapping) else part for part in parts]
    for part in built[1:]:
        if (part.classes, part.samples) != (built[0].classes, built[0].samples):
            raise DataError(
                f"data sets that are joined have the same classes and length, got {built[0].classes} and "
                f"{part.classes}, {built[0].samples} and {part.samples} samples: give both classes=..., seconds=..."
            )
    return ConcatDataset(built)


def token_labels(events: Sequence[Event], classes: Sequence[str], tokens: int) -> Tensor:
    """Zeros and ones ``(tokens, C)``: which events cover the middle of which 40 ms."""
    found = torch.zeros(tokens, len(classes))
    for event in events:
        # the first token whose middle lies at the onset or later; a hair off, since 0.06 / 0.04 is not 1.5
        first, last = (math.ceil(moment / TOKEN_SECONDS - 0.5 - 1e-9) for moment in (event.onset, event.offset))
        if last <= first:
            first = int((event.onset + event.offset) / 2 / TOKEN_SECONDS)
            last = first + 1
        found[min(first, tokens) : min(last, tokens), classes.index(event.label)] = 1
    return found


__all__ = ["TOKEN_SECONDS", "Recordings", "SoundEvents", "joined_events", "token_labels"]
