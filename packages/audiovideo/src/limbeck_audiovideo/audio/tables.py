"""Which files there are and their labels: folders of classes, csv and tsv tables, strong labels in DESED's layout."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from limbeck_audiovideo.audio.reading import SUFFIXES
from limbeck_core.errors import DataError, closest

_EMPTY = ("", "nan", "none", "null")


@dataclass(frozen=True)
class Entry:
    """One recording of a table.

    Args:
        path: The file.
        labels: Names of its classes; ``None`` where nobody labelled it.
    """

    path: Path
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class Event:
    """One sound event of a recording.

    Args:
        onset: When it begins, in seconds.
        offset: When it ends, in seconds.
        label: Its class.
    """

    onset: float
    offset: float
    label: str


@dataclass
class StrongTable:
    """Events by recording, in DESED's layout.

    Args:
        events: Events of each file name; a recording without one has an empty list.
        labels: All classes that occur, sorted.
    """

    events: dict[str, list[Event]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)


def audio_files(folder: str | Path) -> list[Path]:
    """Audio files below a folder, sorted by path.

    Raises:
        DataError: if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: give the data set's root with --data-root or LIMBECK_DATA")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """Rows of a csv or tsv file with a header line; tabs where the header has one, commas otherwise.

    Raises:
        DataError: if the file is missing, empty or no text, or a row has another number of columns.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no table {path}: give the data set's root with --data-root or LIMBECK_DATA")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter="\t" if "\t" in header else ",")
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no readable table ({error})") from error
    if not header.strip():
        raise DataError(f"{path} is empty: expected a header line with the names of its columns")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise DataError(f"{path}, row {number}: {len(reader.fieldnames or ())} columns were expected")
    return rows


def read_table(
    path: str | Path,
    *,
    audio: str | Path,
    file_column: str = "filename",
    label_column: str = "label",
    separator: str | None = None,
    where: Mapping[str, str | Sequence[str]] | None = None,
    suffix: str = "",
) -> list[Entry]:
    """Read a table of recordings with a label each, or several.

    ESC-50: ``label_column="category"``, ``where={"fold": ["1", "2"]}``. FSD50K: ``file_column="fname"``,
    ``label_column="labels"``, ``separator=","``, ``suffix=".wav"``. DESED's weak labels:
    ``label_column="event_labels"``, ``separator=","``.

    Args:
        path: The table, csv or tsv.
        audio: Folder that the names of files are relative to.
        file_column: Column with the name of the file.
        label_column: Column with the label; without such a column no recording is labelled.
        separator: What stands between several labels; ``None`` takes the cell as one label.
        where: Values of other columns that rows must have to be taken.
        suffix: Put behind names of files.

    Raises:
        DataError: if the table cannot be read, or lacks a column that is named.
    """
    rows = read_rows(path)
    columns = list(rows[0]) if rows else []
    for column in (file_column, *(where or {})):
        if rows and column not in columns:
            raise DataError(f"{path} has no column {column!r}: {closest(column, columns)}")
    wanted = {name: {values} if isinstance(values, str) else set(values) for name, values in (where or {}).items()}
    entries = []
    for row in rows:
        if any(row[name] not in values for name, values in wanted.items()):
            continue
        labels = None
        if label_column in columns:
            cell = row[label_column].strip()
            parts = cell.split(separator) if separator is not None else [cell]
            labels = tuple(part.strip() for part in parts if part.strip().lower() not in _EMPTY)
        entries.append(Entry(Path(audio) / (row[file_column] + suffix), labels))
    return entries


def read_folder(folder: str | Path) -> list[Entry]:
    """Recordings of a folder: the name of the folder that a file lies in is its class; without such folders, no label.

    Raises:
        DataError: if there is no such folder.
    """
    folder = Path(folder)
    return [Entry(path, (path.parent.name,) if path.parent != folder else None) for path in audio_files(folder)]


def read_strong(path: str | Path) -> StrongTable:
    """Read strong labels: a tsv file with the columns ``filename onset offset event_label``, one row an event.

    A row without onset, as DESED writes one for a recording without events, names the recording alone.

    Raises:
        DataError: if the table cannot be read, lacks a column, or an event's times are no times.
    """
    table, labels = StrongTable(), set()
    rows = read_rows(path)
    needed = ("filename", "onset", "offset", "event_label")
    if rows and not set(needed) <= rows[0].keys():
        raise DataError(f"{path} must have the columns {', '.join(needed)}, got {', '.join(rows[0])}")
    for number, row in enumerate(rows, 2):
        events = table.events.setdefault(row["filename"], [])
        if row["onset"].strip().lower() in _EMPTY:
            continue
        try:
            onset, offset = float(row["onset"]), float(row["offset"])
        except ValueError as error:
            raise DataError(f"{path}, row {number}: onset and offset must be seconds ({error})") from error
        if not 0 <= onset < offset:
            raise DataError(
                f"{path}, row {number}: an event must begin at 0 or later and end after that, got {onset} to {offset}"
            )
        events.append(Event(onset, offset, row["event_label"]))
        labels.add(row["event_label"])
    table.labels = sorted(labels)
    return table


def write_strong(path: str | Path, events: Mapping[str, Sequence[Event]]) -> Path:
    """Write strong labels in the same layout; a recording without events gets a row of its name alone."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("filename", "onset", "offset", "event_label"))
        for name, found in events.items():
            if not found:
                writer.writerow((name, "", "", ""))
            for event in found:
                writer.writerow((name, f"{event.onset:.3f}", f"{event.offset:.3f}", event.label))
    return path


def class_list(entries: Iterable[Entry], known: Sequence[str] | None = None) -> list[str]:
    """Classes of a table, sorted, or those that are known beforehand.

    Raises:
        DataError: if a recording has a label that is not known.
    """
    found = {label for entry in entries for label in entry.labels or ()}
    if known is None:
        return sorted(found)
    strangers = sorted(found - set(known))
    if strangers:
        raise DataError(
            f"labels that are not in the list of classes: {', '.join(strangers[:8])}; {closest(strangers[0], known)}"
        )
    return list(known)
