"""Spoken digits (the Free Spoken Digit Dataset) in the layout of the rendered sounds, by one path."""

from __future__ import annotations

import csv
import re
import zipfile
from pathlib import Path, PurePosixPath

from limbeck_core.errors import DataError

_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)\.wav")
_TEST_TAKES = 5  # takes 0 to 4 of each digit and speaker are the official test part


def arrange_digits(source: str | Path, folder: str | Path, *, few: int = 5) -> Path:
    """Copy the recordings into ``clips/train`` and ``clips/test``, and write ``train.csv``, ``few.csv``, ``test.csv``.

    Takes 0 to 4 of each digit and speaker are for test, as its authors have it.

    Args:
        source: The data set: a folder with wav files named ``<digit>_<speaker>_<take>.wav``, or a zip file of one.
        folder: Receives the copies.
        few: Recordings of each digit in ``few.csv``, of the training part.

    Returns:
        The folder.

    Raises:
        DataError: if there is no such file or folder, or it holds no such recordings for both parts.
    """
    source, folder = Path(source), Path(folder)
    try:
        found = _read(source)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{source} is neither a folder nor a readable zip file ({error})") from error
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for name, content in sorted(found.items()):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        part = "test" if int(match["take"]) < _TEST_TAKES else "train"
        path = folder / "clips" / part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        parts[part].append((name, match["digit"]))
    if not all(parts.values()):
        raise DataError(
            f"{source} must hold recordings <digit>_<speaker>_<take>.wav with takes below {_TEST_TAKES} for test and "
            f"others to train on, got {len(parts['test'])} and {len(parts['train'])}"
        )
    taken: dict[str, int] = {}
    chosen = []
    for name, digit in sorted(parts["train"], key=lambda row: (row[0].rpartition("_")[2], row[0])):  # take by take
        taken[digit] = taken.get(digit, 0) + 1
        if taken[digit] <= few:
            chosen.append((name, digit))
    for table, rows in {**parts, "few": chosen}.items():
        with (folder / f"{table}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("filename", "label"))
            writer.writerows(rows)
    return folder


def _read(source: Path) -> dict[str, bytes]:
    if source.is_dir():
        return {path.name: path.read_bytes() for path in source.rglob("*.wav")}
    with zipfile.ZipFile(source) as archive:
        names = [name for name in archive.namelist() if name.endswith(".wav")]
        return {PurePosixPath(name).name: archive.read(name) for name in names}
