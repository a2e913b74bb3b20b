"""Tagged words in columns (CoNLL-2002, CoNLL-2003, WikiAnn, MultiCoNER), and tags in the schemes that they come in.

Whatever the scheme of a file, what is returned is BIO: ``B-X`` begins an entity, ``I-X`` goes on, ``O`` is none.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from limbeck_core.errors import ConfigError, DataError, closest

Scheme = Literal["auto", "bio", "iob1", "bioes"]
_TAG = re.compile(r"^(?:O|[BIESUL]-\S+)$")
_LANGUAGE_PREFIX = re.compile(r"^[a-z]{2,3}(?:-[a-z]+)?:(?=.)")
_MEANING = {"U": "S", "L": "E"}  # BILOU says unit and last for single and end


@dataclass(frozen=True)
class TaggedSentence:
    """One sentence.

    Args:
        words: The words.
        tags: A tag for each, in BIO; empty for text without tags.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class TaggedFile:
    """What a file holds.

    Args:
        sentences: The sentences in the file's order.
        scheme: The scheme that its tags were in.
        repaired: How many tags did not fit the scheme and were changed.
        encoding: How its text was encoded.
    """

    sentences: tuple[TaggedSentence, ...]
    scheme: str
    repaired: int
    encoding: str


def read_conll(
    path: str | Path,
    *,
    word_column: int = 0,
    tag_column: int | None = -1,
    scheme: Scheme = "auto",
    encoding: str | None = None,
) -> TaggedFile:
    """Read a file of one word a line, its columns separated by spaces or tabs, sentences by empty lines.

    Lines that begin with ``-DOCSTART-`` end a sentence. ``#`` begins a comment where the line has fewer columns than
    the file's words, or ``id`` follows. A language code before every word (``de:Haus``, WikiAnn) is taken off.

    Args:
        path: The file, perhaps compressed (``.gz``).
        word_column: Column of the word; negative ones count from the end.
        tag_column: Column of the tag; ``None`` for text without tags.
        scheme: ``"bio"`` (IOB2), ``"iob1"`` (``I-`` begins, ``B-`` only after an entity of the same type; the original
            files of CoNLL-2003), ``"bioes"`` (also BILOU). ``"auto"`` tells them apart.
        encoding: Of the text. Default: UTF-8, or Latin-1 if it is not that, as the files of CoNLL-2002 are.

    Raises:
        DataError: if the file is missing, empty or damaged, a line has too few columns, or a tag is none.
    """
    _check_scheme(scheme)
    path = Path(path)
    text, used = _decoded(path, encoding)
    rows: list[list[tuple[str, str]]] = [[]]
    needed = max(_width(word_column), 0 if tag_column is None else _width(tag_column), 1 if tag_column is None else 2)
    for number, line in enumerate(text.split("\n"), start=1):
        columns = line.strip(" \t\r\ufeff").split("\t" if "\t" in line.strip() else None)
        if not any(columns) or columns[0].startswith("-DOCSTART-"):
            rows.append([])
            continue
        if columns[0].startswith("#") and (len(columns) < needed or columns[1:2] == ["id"]):
            continue
        if len(columns) < needed:
            raise DataError(
                f"{path}, line {number}: expected at least {needed} columns (a word and its tag), got {line!r}; "
                "for text without tags use tag_column=None"
            )
        tag = "" if tag_column is None else columns[tag_column].strip()
        if tag_column is not None and not _TAG.match(tag):
            raise DataError(
                f"{path}, line {number}: expected a tag such as O, B-PER or I-PER in column {tag_column}, got {tag!r}: "
                "choose another tag_column"
            )
        rows[-1].append((columns[word_column].strip(), tag))
    rows = [row for row in rows if row]
    if not rows:
        raise DataError(f"{path} holds no sentence: expected one word a line")
    if all(_LANGUAGE_PREFIX.match(word) for row in rows for word, _ in row):
        rows = [[(_LANGUAGE_PREFIX.sub("", word), tag) for word, tag in row] for row in rows]
    if tag_column is None:
        return TaggedFile(tuple(TaggedSentence(tuple(w for w, _ in row), ()) for row in rows), "none", 0, used)
    found = scheme_of([tag for _, tag in row] for row in rows) if scheme == "auto" else scheme
    repaired = 0
    sentences = []
    for row in rows:
        tags, changed = to_bio([tag for _, tag in row], scheme=found)
        repaired += changed
        sentences.append(TaggedSentence(tuple(word for word, _ in row), tuple(tags)))
    return TaggedFile(tuple(sentences), found, repaired, used)


def write_conll(path: str | Path, sentences: Iterable[TaggedSentence]) -> None:
    """Write words and tags in two columns, UTF-8."""
    blocks = ["\n".join(f"{w} {t}" for w, t in zip(s.words, s.tags, strict=True)) for s in sentences]
    Path(path).write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def scheme_of(sentences: Iterable[Sequence[str]]) -> Literal["bio", "iob1", "bioes"]:
    """Tell the scheme of tags: ``bioes`` if any tag ends or stands alone, ``iob1`` if ``B-`` only divides entities.

    Args:
        sentences: Tags of each sentence.
    """
    starts = {"B": 0, "I": 0}
    for tags in sentences:
        before = "O"
        for tag in tags:
            if tag[0] in "ESUL":
                return "bioes"
            if tag != "O" and tag[2:] != before[2:]:
                starts[tag[0]] += 1
            before = tag
    return "iob1" if starts["I"] and not starts["B"] else "bio"


def to_bio(tags: Sequence[str], *, scheme: Scheme = "bio") -> tuple[list[str], int]:
    """Return the tags of one sentence in BIO, and how many did not fit their scheme.

    In BIO an ``I-X`` that goes on nothing becomes ``B-X``. In BIOES whatever does not begin with ``B`` or ``S`` and
    goes on nothing begins an entity, an entity also ends where the next one begins, and a missing end counts.

    Args:
        tags: The tags.
        scheme: See :func:`read_conll`.

    Raises:
        ConfigError: if ``scheme`` is unknown.

    >>> to_bio(["I-PER", "I-PER", "O", "B-LOC"])
    (['B-PER', 'I-PER', 'O', 'B-LOC'], 1)
    """
    _check_scheme(scheme)
    found = scheme_of([tags]) if scheme == "auto" else scheme
    result: list[str] = []
    repaired = 0
    open_type = ""  # of the entity that the next tag may continue
    inside = False  # of an entity of BIOES that wants an end
    for tag in tags:
        if tag == "O":
            repaired += inside
            open_type, inside = "", False
            result.append("O")
            continue
        letter, kind = _MEANING.get(tag[0], tag[0]), tag[2:]
        goes_on = letter in "IE" and kind == open_type
        if found == "bioes":
            repaired += (inside and not goes_on) + (letter in "IE" and not goes_on)
            inside = letter in "BI"
            open_type = kind if inside else ""
        else:
            repaired += letter not in "BI" or (found == "bio" and letter == "I" and not goes_on)
            open_type = kind
        result.append(("I-" if goes_on else "B-") + kind)
    return result, repaired + inside


def to_bioes(tags: Sequence[str]) -> list[str]:
    """Return BIO tags in BIOES.

    >>> to_bioes(["B-PER", "I-PER", "O", "B-LOC"])
    ['B-PER', 'E-PER', 'O', 'S-LOC']
    """
    following = [*tags[1:], "O"]
    result = []
    for tag, after in zip(tags, following, strict=True):
        ends = after != f"I-{tag[2:]}"
        letter = {("B", True): "S", ("I", True): "E"}.get((tag[0], ends), tag[0])
        result.append(tag if tag == "O" else f"{letter}-{tag[2:]}")
    return result


def label_list(types: Iterable[str]) -> tuple[str, ...]:
    """Return the BIO labels of entity types: ``O`` first, then ``B-X`` and ``I-X`` of each type, sorted."""
    return ("O", *(f"{letter}-{kind}" for kind in sorted(set(types)) for letter in "BI"))


def _check_scheme(scheme: str) -> None:
    if scheme not in get_args(Scheme):
        raise ConfigError(f"scheme must be one of {', '.join(get_args(Scheme))}, got {scheme!r}")


def _width(column: int) -> int:
    return column + 1 if column >= 0 else -column


def _decoded(path: Path, encoding: str | None) -> tuple[str, str]:
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no file {path}; of {path.parent}, {closest(path.name, sorted(siblings))}")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for name in ("utf-8", "latin-1") if encoding is None else (encoding,):
        try:
            return raw.decode(name), name
        except UnicodeDecodeError as error:
            failure = error
        except LookupError as error:
            raise ConfigError(f"encoding must be one that Python knows, got {name!r}") from error
    raise DataError(f"{path} is no text in {encoding}: {failure}; name another encoding")
