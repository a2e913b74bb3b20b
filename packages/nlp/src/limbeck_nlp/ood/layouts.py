"""Where the texts and outliers of the usual data sets stand on the disk. Nothing is downloaded.

Each reader takes a folder, a part (``"train"``: texts to learn from, no outliers; ``"test"``: both) and the class that
is inside, and returns texts with a flag each: is it an outlier?
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from limbeck_core.errors import ConfigError, DataError, closest
from limbeck_nlp.data.classification import read_table
from limbeck_nlp.data.masked import read_lines

Part = Literal["train", "test"]
Flagged = list[tuple[str, bool]]

# The six groups of 20 Newsgroups in which one is inside at a time, by the beginnings of their names.
NEWSGROUPS: dict[str, tuple[str, ...]] = {
    "comp": ("comp.",),
    "rec": ("rec.",),
    "sci": ("sci.",),
    "misc": ("misc.",),
    "pol": ("talk.politics.",),
    "rel": ("talk.religion.", "alt.atheism", "soc.religion."),
}
_QUOTES = re.compile(r"(writes|wrote)( in article.*)?:\s*$|^In article .*")
AG_NEWS = ("world", "sports", "business", "sci_tech")  # its classes 1 to 4


def read_ood(root: str | Path, layout: str, part: str, *, inside: str | None = None) -> Flagged:
    """Read one part of a data set.

    Args:
        root: Its folder.
        layout: One of ``LAYOUTS``; which files each expects stands in ``limbeck_nlp/ood/README.md``.
        part: ``"train"``, or ``"test"``.
        inside: Which class is inside, for ``20ng`` (one of ``NEWSGROUPS``), ``ag_news`` (one of ``AG_NEWS``) and
            ``hc3`` (``"machine"``, its default, or ``"human"``).

    Returns:
        Texts without line breaks at their ends, none empty, each with whether it is an outlier; none is in
        ``"train"``.

    Raises:
        ConfigError: if the layout, the part or the class is unknown, with the closest name.
        DataError: if a file is missing or damaged, or holds no text.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"no layout is called {layout!r}: {closest(layout, LAYOUTS)}")
    if part not in ("train", "test"):
        raise ConfigError(f"part must be 'train' or 'test', got {part!r}")
    reader, classes = LAYOUTS[layout]
    if inside is None and layout == "hc3":
        inside = "machine"
    if not classes and inside is not None:
        raise ConfigError(f"the layout {layout!r} has no classes to choose from, got inside={inside!r}: leave it out")
    if classes and inside not in classes:
        raise ConfigError(f"inside must name the class that is no outlier: {closest(str(inside), classes)}")
    found = [(text.strip(), outlier) for text, outlier in reader(Path(root), part, inside or "")]
    found = [(text, outlier) for text, outlier in found if text]
    if part == "train":
        found = [(text, outlier) for text, outlier in found if not outlier]
    if not found:
        raise DataError(f"{root} holds no text in the layout {layout!r}, part {part!r}: check the folder")
    return found


def _lines(root: Path, part: str, inside: str) -> Flagged:
    """``train.txt``; ``test.txt`` and ``ood.txt``."""
    found = [(text, False) for text in read_lines(root / f"{part}.txt")]
    return found if part == "train" else [*found, *((text, True) for text in read_lines(root / "ood.txt"))]


def _clinc150(root: Path, part: str, inside: str) -> Flagged:
    """``data_full.json`` (or ``.json.gz``) as it is published."""
    entries = _read_json(root, "data_full.json")
    if not isinstance(entries, Mapping) or part not in entries or "oos_test" not in entries:
        raise DataError(f"{root}/data_full.json must hold the parts train, test and oos_test of CLINC150")
    found = [(str(entry[0]), False) for entry in entries[part]]
    return found if part == "train" else [*found, *((str(entry[0]), True) for entry in entries["oos_test"])]


def _sst(root: Path, part: str, inside: str) -> Flagged:
    """GLUE's ``train.tsv`` and ``dev.tsv`` (its test part has no use for the labels either); ``ood.txt``."""
    file = root / ("train.tsv" if part == "train" else "dev.tsv")
    found = [(row[0], False) for row in read_table(file, ["sentence"])]
    return found if part == "train" else [*found, *((text, True) for text in read_lines(root / "ood.txt"))]


def _rostd(root: Path, part: str, inside: str) -> Flagged:
    """``OODRemovedtrain.tsv`` and ``test.tsv``: intent, slots, text; outliers have the intent ``outOfDomain``."""
    rows = _rows(root / ("OODRemovedtrain.tsv" if part == "train" else "test.tsv"), 3, "\t")
    return [(row[2], row[0] == "outOfDomain") for row in rows]


def _newsgroups(root: Path, part: str, inside: str) -> Flagged:
    """``20news-bydate-train`` and ``-test`` with a folder a group; header, quotes and signature are taken off."""
    folder = root / f"20news-bydate-{part}"
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: expected 20 Newsgroups 'bydate', a folder a group")
    found: Flagged = []
    for path in sorted(folder.glob("*/*")):
        outlier = not path.parent.name.startswith(NEWSGROUPS[inside])
        if not (outlier and part == "train"):
            found.append((_said(path.read_text(encoding="latin-1")), outlier))
    return found


def _said(post: str) -> str:
    """What its author says: no header (it ends at the first empty line), no quoted lines, nothing after ``--``."""
    lines = post.partition("\n\n")[2].splitlines()
    end = next((number for number, line in enumerate(lines) if line.rstrip() == "--"), len(lines))
    own = [line for line in lines[:end] if not line.startswith((">", "|", ":")) and not _QUOTES.search(line)]
    return " ".join(" ".join(own).split())


def _ag_news(root: Path, part: str, inside: str) -> Flagged:
    """``train.csv`` and ``test.csv``: class 1 to 4, title, description."""
    wanted = str(AG_NEWS.index(inside) + 1)
    return [(f"{row[1]} {row[2]}", row[0] != wanted) for row in _rows(root / f"{part}.csv", 3, ",")]


def _hc3(root: Path, part: str, inside: str) -> Flagged:
    """``all.jsonl`` with human_answers and chatgpt_answers; half of those inside (seed 42) are to learn from."""
    answers: dict[str, list[str]] = {"human": [], "machine": []}
    for entry in _objects(root / "all.jsonl", ("human_answers", "chatgpt_answers")):
        for kind, name in (("human", "human_answers"), ("machine", "chatgpt_answers")):
            answers[kind] += [" ".join(str(text).split()) for text in entry[name]]
    kept = [text for text in answers[inside] if text]
    random.Random(42).shuffle(kept)
    half = len(kept) // 2
    if part == "train":
        return [(text, False) for text in kept[:half]]
    other = "human" if inside == "machine" else "machine"
    return [*((text, False) for text in kept[half:]), *((text, True) for text in answers[other])]


LAYOUTS: dict[str, tuple[Callable[[Path, str, str], Flagged], Sequence[str]]] = {
    "lines": (_lines, ()),
    "clinc150": (_clinc150, ()),
    "sst": (_sst, ()),
    "rostd": (_rostd, ()),
    "20ng": (_newsgroups, tuple(NEWSGROUPS)),
    "ag_news": (_ag_news, AG_NEWS),
    "hc3": (_hc3, ("machine", "human")),
}


def _missing(path: Path) -> DataError:
    siblings = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    return DataError(f"there is no file {path}; of {path.parent}, {closest(path.name, siblings)}")


def _read_json(root: Path, name: str) -> Any:
    packed = root / f"{name}.gz"
    path = packed if packed.is_file() and not (root / name).is_file() else root / name
    if not path.is_file():
        raise _missing(path)
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path == packed else data)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no JSON file: {error}") from error


def _rows(path: Path, columns: int, delimiter: str) -> Iterator[list[str]]:
    if not path.is_file():
        raise _missing(path)
    with path.open(encoding="utf-8", newline="") as file:
        try:
            quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
            for number, row in enumerate(csv.reader(file, delimiter=delimiter, quoting=quoting), start=1):
                if row and len(row) < columns:
                    raise DataError(f"{path}, line {number}: expected {columns} columns or more, got {len(row)}")
                if row:
                    yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a table of UTF-8 text: {error}") from error


def _objects(path: Path, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        raise _missing(path)
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number} is no JSON object: {error}") from error
            for name in names:
                if not isinstance(entry, Mapping) or not isinstance(entry.get(name), list):
                    raise DataError(f"{path}, line {number}: expected a list {name!r}")
            yield entry
