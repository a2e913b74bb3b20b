"""The files of a teacher bank: fixed-size records that are looked up by sample, checked before they are believed.

A bank is a folder::

    manifest.json      what the bank is: format, key, sizes, columns, taps. Written first, never changed; it carries the
                       SHA-256 of its own content, and that of the two files below
    ids.bin            the id of each sample, int64 in ascending order; absent where ids are 0, 1, 2, ...
    constants.bin      tensors that belong to no sample (a parameter that was tapped); absent without any
    view0-00000.bank   a shard: consecutive samples of one view
    view0-00001.bank   ...

Sample number ``p`` (its position among the ids) of view ``v`` is row ``p % S`` of shard ``p // S`` of that view, where
``S`` is the manifest's ``shard_samples``. A shard is one file::

    64 bytes           magic, digest of the manifest, number of the shard, number of rows
    rows x size bytes  of the first column, then of the second, ... (see :mod:`limbeck_core.bank.encodings`)
    8 + 8 bytes        a column: the largest error of its rows and the sum of the errors, float64
    4 bytes            a block: CRC-32 of its bytes. A block is about 64 KiB of consecutive rows of one column
    4 bytes            CRC-32 of the header and everything after the rows

All numbers are little-endian. A shard is written beside its place and renamed when it is whole and on the disk, so
whatever stands under its name is finished; a writer that is killed loses one shard. Writers lock a shard while they
write it, so that any number of processes share the work.

The first read of a block compares it with its checksum; later reads do not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import socket
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from limbeck_core.bank.encodings import Column, Encoding, Rows
from limbeck_core.errors import BankError

try:
    import fcntl
except ImportError:  # not a Unix system: writers share the shards by their rank alone
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
MANIFEST = "manifest.json"
SHARDS = 64  # about as many as this; a writer that is killed loses one of them
_IDS, _CONSTANTS = "ids.bin", "constants.bin"
_MAGIC = b"limbeck bank\n\x001\n"
_HEADER = struct.Struct("<16s32sII8x")
_BLOCK = 1 << 16
_CRC = 4
_LARGEST_NUMBER = 2**48

Numbers = npt.NDArray[np.int64]


# ---------------------------------------------------------------------- manifest


@dataclass(frozen=True)
class Manifest:
    """What a bank is.

    Args:
        key: Everything the content depends on, as plain data: teacher, data, seed. Two banks of one key are equal.
        samples: Number of samples.
        views: Number of random views of each.
        shard_samples: Samples of a shard, except for the last of each view.
        columns: The tensors of each sample.
        taps: For each tap of the teacher its coordinates and the structure of its value, whose leaves are numbers of
            columns and of constants.
        constants: Type and shape of each tensor that belongs to no sample.
        files: SHA-256 of the further files, by name.
        about: How it was written; nothing depends on it.
    """

    key: Mapping[str, Any]
    samples: int
    views: int
    shard_samples: int
    columns: tuple[Column, ...]
    taps: tuple[Mapping[str, Any], ...]
    constants: tuple[Mapping[str, Any], ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shards_per_view(self) -> int:
        """Number of shards of one view."""
        return -(-self.samples // self.shard_samples)

    @property
    def shards(self) -> int:
        """Number of shards of all views."""
        return self.shards_per_view * self.views

    @property
    def record_size(self) -> int:
        """Bytes of one sample and view, without checksums."""
        return sum(column.codec().size for column in self.columns)

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        layouts = {rows: Layout.of(self.columns, rows) for rows in {self.rows(s) for s in range(self.shards_per_view)}}
        return self.views * sum(layouts[self.rows(s)].size for s in range(self.shards_per_view))

    def rows(self, shard: int) -> int:
        """Number of samples of a shard."""
        start = shard % self.shards_per_view * self.shard_samples
        return min(self.shard_samples, self.samples - start)

    def place(self, shard: int) -> tuple[int, int, int]:
        """View of a shard, position of its first sample, and position after its last."""
        view, number = divmod(shard, self.shards_per_view)
        start = number * self.shard_samples
        return view, start, start + self.rows(shard)

    def name(self, shard: int) -> str:
        """Name of a shard's file."""
        view, number = divmod(shard, self.shards_per_view)
        return f"view{view}-{number:05d}.bank"

    def content(self) -> dict[str, Any]:
        """The manifest as plain data, without its digest."""
        return {"format": FORMAT, **json.loads(json.dumps(asdict(self)))}

    @property
    def digest(self) -> bytes:
        """SHA-256 of the content, as every shard carries it."""
        return hashlib.sha256(_canonical(self.content())).digest()


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def read_manifest(folder: Path) -> Manifest:
    """Read a bank's manifest.

    Raises:
        BankError: if there is none, it is damaged, or of a newer format.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise BankError(_nothing_in(folder)) from None
    except OSError as error:
        raise BankError(f"{path} cannot be read ({error})") from error
    advice = "copy it again, or delete the folder and write the bank anew"
    try:
        content = json.loads(text)
        digest, version = content.pop("digest"), content["format"]
        whole = hashlib.sha256(_canonical(content)).hexdigest() == digest
        manifest = _parsed(content) if whole and version == FORMAT else None
    except (BankError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BankError(f"{path} is damaged ({type(error).__name__}: {error}): {advice}") from error
    if not whole:
        raise BankError(f"{path} is damaged (its content does not match its digest): {advice}")
    if manifest is None:
        raise BankError(
            f"{path} has bank format {version}, and this version of limbeck-core reads {FORMAT}: install the version "
            "that wrote it, or write the bank anew in another folder"
        )
    return manifest


def _nothing_in(folder: Path) -> str:
    inside = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}")) if folder.is_dir() else []
    if inside:
        return f"{folder} holds the banks of several teachers, {', '.join(inside)}: name the folder of one of them"
    return (
        f"{folder} holds no teacher bank (it has no {MANIFEST}): write one with 'limbeck bank CONFIG --bank {folder}'"
    )


def _parsed(content: Mapping[str, Any]) -> Manifest:
    columns = tuple(
        Column(str(c["name"]), tuple(_count(n, 0) for n in c["shape"]), str(c["dtype"]), str(c["encoding"]))
        for c in content["columns"]
    )
    for column in columns:
        column.codec()
    constants = tuple(
        {"dtype": str(c["dtype"]), "shape": [_count(n, 0) for n in c["shape"]]} for c in content["constants"]
    )
    manifest = Manifest(
        key=dict(content["key"]),
        samples=_count(content["samples"], 1),
        views=_count(content["views"], 1),
        shard_samples=_count(content["shard_samples"], 1),
        columns=columns,
        taps=tuple(dict(tap) for tap in content["taps"]),
        constants=constants,
        files={str(name): str(digest) for name, digest in content["files"].items()},
        about=dict(content["about"]),
    )
    for tap in manifest.taps:
        _check_structure(tap["value"], len(columns), len(constants))
        if not isinstance(tap["tap"], list):
            raise ValueError(f"{tap['tap']!r} are no coordinates of a tap")
    return manifest


def _count(value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _LARGEST_NUMBER:
        raise ValueError(f"{value!r} is no size")
    return value


# ---------------------------------------------------------------------- values of taps


def flatten(value: Any, leaves: list[Tensor]) -> Any:
    """Take a tapped value apart.

    Args:
        value: A tensor, a number, text or ``None``, or sequences and mappings of them.
        leaves: Tensors are appended here.

    Returns:
        The structure as plain data, in which tensors are numbers of leaves.

    Raises:
        BankError: for anything else.
    """
    if isinstance(value, Tensor):
        leaves.append(value)
        return {"leaf": len(leaves) - 1}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, (str, int)):
                raise BankError(f"a tapped mapping has the key {key!r}: a bank stores mappings with text or numbers")
        return {"mapping": [[key, flatten(item, leaves)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [flatten(item, leaves) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"plain": value}
    raise BankError(
        f"a tap reads a {type(value).__module__}.{type(value).__qualname__}, and a bank stores tensors, and sequences "
        "and mappings of them: pick its tensor with Tap(..., pick=...)"
    )


def unflatten(structure: Any, leaves: Sequence[Any] | Mapping[int, Any]) -> Any:
    """Put a value together again; the opposite of :func:`flatten`. Named tuples come back as tuples."""
    ((kind, inside),) = structure.items()
    if kind == "leaf":
        return leaves[inside]
    if kind == "mapping":
        return {key: unflatten(item, leaves) for key, item in inside}
    if kind == "plain":
        return inside
    items = [unflatten(item, leaves) for item in inside]
    return items if kind == "list" else tuple(items)


def renumbered(structure: Any, numbers: Sequence[int]) -> Any:
    """Return a structure whose leaf ``i`` is leaf ``numbers[i]``."""
    ((kind, inside),) = structure.items()
    if kind == "leaf":
        return {"leaf": numbers[inside]}
    if kind == "mapping":
        return {"mapping": [[key, renumbered(item, numbers)] for key, item in inside]}
    if kind == "plain":
        return structure
    return {kind: [renumbered(item, numbers) for item in inside]}


def leaf_numbers(structure: Any) -> list[int]:
    """Numbers of the leaves of a structure, in order."""
    ((kind, inside),) = structure.items()
    if kind == "leaf":
        return [inside]
    if kind == "plain":
        return []
    items = [item for _, item in inside] if kind == "mapping" else inside
    return [number for item in items for number in leaf_numbers(item)]


def _check_structure(structure: Any, columns: int, constants: int) -> None:
    """Leaves from 0 are columns, those below 0 are constants, the first of which is -1."""
    for number in leaf_numbers(structure):
        if not isinstance(number, int) or not -constants <= number < columns:
            raise ValueError(f"there is no tensor {number!r}")


# ---------------------------------------------------------------------- shards


class Layout(NamedTuple):
    """Where everything of a shard stands.

    Args:
        sizes: Bytes a row, by column.
        starts: Position of each column in the file.
        blocks: Rows of a block, by column.
        counts: Number of blocks, by column.
        foot: Position after the rows.
        size: Bytes of the whole file.
        rows: Number of rows.
    """

    sizes: tuple[int, ...]
    starts: tuple[int, ...]
    blocks: tuple[int, ...]
    counts: tuple[int, ...]
    foot: int
    size: int
    rows: int

    @classmethod
    def of(cls, columns: Sequence[Column], rows: int) -> Layout:
        """Return the layout of a shard of so many rows."""
        sizes = tuple(column.codec().size for column in columns)
        starts, position = [], _HEADER.size
        for size in sizes:
            starts.append(position)
            position += size * rows
        blocks = tuple(max(1, _BLOCK // size) for size in sizes)
        counts = tuple(-(-rows // block) for block in blocks)
        total = position + 16 * len(sizes) + _CRC * sum(counts) + _CRC
        return cls(sizes, tuple(starts), blocks, counts, position, total, rows)


class ShardWriter:
    """Writes one shard, row by row; whole or not at all.

    Args:
        folder: The bank's.
        manifest: The bank's.
        shard: Number of the shard.

    Use it as a context: leaving it without an error gives the file its name, leaving it with one deletes what was
    written.

    Raises:
        BankError: if the disk is full or cannot be written.
    """

    def __init__(self, folder: Path, manifest: Manifest, shard: int) -> None:
        self.folder, self.manifest, self.shard = folder, manifest, shard
        self.path = folder / manifest.name(shard)
        self.layout = Layout.of(manifest.columns, manifest.rows(shard))
        self.codecs: list[Encoding] = [column.codec() for column in manifest.columns]
        self._written = 0
        self._sums = [[0] * count for count in self.layout.counts]
        self._errors = np.zeros((len(self.codecs), 2))
        self._temporary = folder / f".{self.path.name}.{socket.gethostname()}-{os.getpid()}.writing"
        self._file: IO[bytes] | None = None

    def __enter__(self) -> ShardWriter:
        with self._writing():
            self._file = self._temporary.open("wb")
            self._file.write(self._header())
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            with contextlib.suppress(OSError):
                if self._file is not None:
                    self._file.close()
                self._temporary.unlink(missing_ok=True)

    def _header(self) -> bytes:
        return _HEADER.pack(_MAGIC, self.manifest.digest, self.shard, self.layout.rows)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BankError(
                f"{self.path} could not be written ({error}); the shards before it are whole. Free space on that disk "
                "and give the command again: it goes on where it stopped"
            ) from error

    def append(self, values: Sequence[Tensor]) -> None:
        """Write the next rows.

        Args:
            values: One tensor a column, ``(N, *shape)`` on the CPU, of the manifest's shapes and types.

        Raises:
            BankError: if a value does not fit its encoding; see also the class.
        """
        layout = self.layout
        for number, (codec, value) in enumerate(zip(self.codecs, values, strict=True)):
            column = self.manifest.columns[number]
            try:
                rows = codec.encode(value)
            except BankError as error:
                raise BankError(f"{column.name}: {error}") from error
            errors = codec.errors(value, codec.decode(rows))
            self._errors[number, 0] = max(self._errors[number, 0], float(errors.max()))
            self._errors[number, 1] += float(errors.sum())
            with self._writing():
                self._write(layout.starts[number] + self._written * layout.sizes[number], rows.tobytes())
            self._check_in(number, rows)
        self._written += len(values[0])

    def _write(self, position: int, content: bytes) -> None:
        file = self._file
        if file is None:
            raise BankError("a shard is written inside of 'with ShardWriter(...)'")
        file.seek(position)
        file.write(content)

    def _check_in(self, column: int, rows: Rows) -> None:
        """Count rows into the checksums of their blocks."""
        block, sums, done = self.layout.blocks[column], self._sums[column], 0
        while done < len(rows):
            number = (self._written + done) // block
            upto = min(len(rows), (number + 1) * block - self._written)
            sums[number] = zlib.crc32(rows[done:upto].tobytes(), sums[number])
            done = upto

    def _finish(self) -> None:
        if self._written != self.layout.rows:
            raise BankError(f"{self.path} should hold {self.layout.rows} rows and got {self._written}")
        foot = self._errors.astype("<f8").tobytes()
        foot += np.array([value for sums in self._sums for value in sums], dtype="<u4").tobytes()
        foot += struct.pack("<I", zlib.crc32(self._header() + foot))
        with self._writing():
            self._write(self.layout.foot, foot)
            if self._file is not None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
            self._temporary.replace(self.path)
            _sync(self.folder)


def _sync(folder: Path) -> None:
    """Let a new name itself reach the disk; some file systems cannot, and lose at most the newest name."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def claimed(folder: Path, manifest: Manifest, shard: int) -> Iterator[bool]:
    """Context in which no other process writes a shard; gives whether this one may.

    The lock goes with the process, however it ends. File systems without locks grant everything, and writers then
    repeat each other's work with the same result.
    """
    if fcntl is None:  # type: ignore[unreachable,unused-ignore]
        yield True  # type: ignore[unreachable,unused-ignore]
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context((folder / f".{manifest.name(shard)}.lock").open("wb"))
        except OSError as error:
            raise BankError(f"{folder} cannot be written ({error}): choose another folder with --bank") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            yield True
            return
        yield True


class Shard:
    """A finished shard, mapped into memory.

    Args:
        path: The file.
        manifest: The bank's.
        shard: Number of the shard.

    Raises:
        BankError: if it is missing, truncated, damaged in its header or foot, or belongs to another bank.
    """

    def __init__(self, path: Path, manifest: Manifest, shard: int) -> None:
        self.path, self.manifest, self.shard = path, manifest, shard
        self.layout = layout = Layout.of(manifest.columns, manifest.rows(shard))
        try:
            with path.open("rb") as file:
                length = os.fstat(file.fileno()).st_size
                if length != layout.size:
                    raise BankError(
                        f"{path} has {length} bytes and should have {layout.size}, it was cut off or is another file: "
                        f"{_REPAIR}"
                    )
                mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        except OSError as error:
            raise BankError(f"{path} cannot be read ({error}): {_REPAIR}") from error
        header, foot = mapped[: _HEADER.size].tobytes(), mapped[layout.foot :].tobytes()
        magic, digest, number, rows = _HEADER.unpack(header)
        if struct.pack("<I", zlib.crc32(header + foot[:-_CRC])) != foot[-_CRC:] or magic != _MAGIC:
            raise BankError(f"{path} is damaged (its header does not match its checksum): {_REPAIR}")
        if digest != manifest.digest or (number, rows) != (shard, layout.rows):
            raise BankError(
                f"{path} belongs to another bank or place than the {MANIFEST} beside it, they were mixed up: delete "
                "it, and let 'limbeck bank' write it anew"
            )
        self.columns = [
            mapped[start : start + size * layout.rows].reshape(layout.rows, size)
            for start, size in zip(layout.starts, layout.sizes, strict=True)
        ]
        cut = 16 * len(layout.sizes)
        self.errors = np.frombuffer(foot[:cut], dtype="<f8").reshape(-1, 2)
        ends = np.cumsum(layout.counts)[:-1]
        self._sums = np.split(np.frombuffer(foot[cut:-_CRC], dtype="<u4"), ends)
        self._checked = [np.zeros(count, dtype=bool) for count in layout.counts]

    def take(self, column: int, rows: Numbers) -> Rows:
        """Return rows of a column, after comparing the blocks they stand in with their checksums.

        Raises:
            BankError: if a block is damaged.
        """
        blocks = rows // self.layout.blocks[column]
        checked = self._checked[column]
        if not checked[blocks].all():
            for block in np.unique(blocks[~checked[blocks]]).tolist():
                self.check(column, block)
        taken: Rows = self.columns[column][rows]
        return taken

    def check(self, column: int, block: int) -> None:
        """Compare one block with its checksum.

        Raises:
            BankError: naming file, column and samples.
        """
        size = self.layout.blocks[column]
        first, last = block * size, min((block + 1) * size, self.layout.rows)
        if zlib.crc32(self.columns[column][first:last].data) != int(self._sums[column][block]):
            view, start, _ = self.manifest.place(self.shard)
            raise BankError(
                f"{self.path} is damaged: {self.manifest.columns[column].name} of samples {start + first} to "
                f"{start + last - 1} (view {view}) does not match its checksum: {_REPAIR}"
            )
        self._checked[column][block] = True

    def check_all(self) -> None:
        """Compare every block with its checksum.

        Raises:
            BankError: as :meth:`check`.
        """
        for column, count in enumerate(self.layout.counts):
            for block in range(count):
                self.check(column, block)


_REPAIR = "give 'limbeck bank' the same arguments again, and it writes what is missing or damaged"


# ---------------------------------------------------------------------- the bank


class Bank:
    """A bank on the disk, to read.

    Args:
        folder: Where it is.

    Nothing but the manifest and the ids is read until values are asked for.

    Raises:
        BankError: if there is no bank, or its manifest is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self._codecs = [column.codec() for column in self.manifest.columns]
        self._ids = self._read_ids()
        self._shards: dict[int, Shard] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Bank, (self.folder,)  # another process maps the files for itself

    def _file(self, name: str) -> bytes:
        path = self.folder / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BankError(f"{path} cannot be read ({error}): copy it again, or write the bank anew") from error
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name]:
            raise BankError(f"{path} is damaged or of another bank: copy it again, or write the bank anew")
        return content

    def _read_ids(self) -> Numbers | None:
        if _IDS not in self.manifest.files:
            return None
        ids = np.frombuffer(self._file(_IDS), dtype="<i8")
        if len(ids) != self.manifest.samples:
            raise BankError(f"{self.folder / _IDS} holds {len(ids)} ids for {self.manifest.samples} samples")
        return ids

    @property
    def ids(self) -> Numbers:
        """Ids of the samples, in ascending order."""
        return np.arange(self.manifest.samples) if self._ids is None else self._ids

    def constants(self) -> list[Tensor]:
        """Tensors that belong to no sample.

        Raises:
            BankError: if their file is damaged.
        """
        if not self.manifest.constants:
            return []
        content, position, found = self._file(_CONSTANTS), 0, []
        for described in self.manifest.constants:
            column = Column("a constant", (1, *described["shape"]), described["dtype"], "exact")
            codec = column.codec()
            rows = np.frombuffer(content[position : position + codec.size], dtype=np.uint8).reshape(1, -1)
            position += codec.size
            found.append(codec.decode(rows)[0, 0])
        return found

    def shard(self, number: int) -> Shard:
        """Return a shard, mapped once.

        Raises:
            BankError: as :class:`Shard`; if the bank is unfinished, with how much is missing.
        """
        found = self._shards.get(number)
        if found is None:
            path = self.folder / self.manifest.name(number)
            if not path.exists():
                missing = self.missing()
                raise BankError(
                    f"the bank in {self.folder} is not finished: {len(missing)} of its {self.manifest.shards} shards "
                    f"are missing, the first is {self.manifest.name(missing[0]) if missing else path.name}: {_REPAIR}"
                )
            found = self._shards[number] = Shard(path, self.manifest, number)
        return found

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there."""
        return [n for n in range(self.manifest.shards) if not (self.folder / self.manifest.name(n)).exists()]

    def positions(self, ids: Numbers) -> Numbers:
        """Return the positions of samples.

        Raises:
            BankError: naming an id that is not in the bank.
        """
        samples = self.manifest.samples
        if self._ids is None:
            foreign = (ids < 0) | (ids >= samples)
            positions = ids
        else:
            positions = np.searchsorted(self._ids, ids).clip(0, samples - 1)
            foreign = self._ids[positions] != ids
        if foreign.any():
            known = self.ids
            raise BankError(
                f"sample {int(ids[foreign][0])} is not in the bank in {self.folder}, which holds {samples} samples "
                f"with ids from {int(known[0])} to {int(known[-1])}: write the bank on the data set that is trained on"
            )
        return positions

    def rows(self, column: int, positions: Numbers, views: Numbers) -> Rows:
        """Return the stored bytes of a column, shape ``(N, size)``.

        Args:
            column: Number of the column.
            positions: Positions of the samples, shape ``(N,)``.
            views: View of each.

        Raises:
            BankError: if a shard is missing or damaged.
        """
        manifest = self.manifest
        shards = views * manifest.shards_per_view + positions // manifest.shard_samples
        within = positions % manifest.shard_samples
        if not len(shards) or (shards[0] == shards).all():
            return (
                self.shard(int(shards[0])).take(column, within)
                if len(shards)
                else np.zeros((0, self._codecs[column].size), np.uint8)
            )
        taken: Rows = np.empty((len(shards), self._codecs[column].size), np.uint8)
        order = np.argsort(shards, kind="stable")
        cuts = np.flatnonzero(np.diff(shards[order])) + 1
        for group in np.split(order, cuts):
            taken[group] = self.shard(int(shards[group[0]])).take(column, within[group])
        return taken

    def read(self, column: int, positions: Numbers, views: Numbers) -> Tensor:
        """Return the decoded tensors of a column, shape ``(N, *shape)``; arguments as of :meth:`rows`."""
        return self._codecs[column].decode(self.rows(column, positions, views))

    def complaints(self) -> Iterator[tuple[int, str]]:
        """Look at every byte; yield the number of each shard that is missing or damaged, and what is wrong."""
        for number in range(self.manifest.shards):
            path = self.folder / self.manifest.name(number)
            try:
                if not path.exists():
                    raise BankError(f"{path} is missing")
                Shard(path, self.manifest, number).check_all()
            except BankError as error:
                yield number, str(error)

    def errors(self) -> list[tuple[float, float]]:
        """Largest and mean error of each column over all samples and views, as measured when they were written.

        Raises:
            BankError: if a shard is missing or damaged.
        """
        found = np.stack([self.shard(number).errors for number in range(self.manifest.shards)])
        count = self.manifest.samples * self.manifest.views
        return [
            (float(largest), float(total) / count)
            for largest, total in zip(found[..., 0].max(0), found[..., 1].sum(0), strict=True)
        ]


def create(folder: Path, manifest: Manifest, ids: Numbers | None = None, constants: Sequence[Tensor] = ()) -> Manifest:
    """Make the folder of a bank, or join the one that is there.

    Args:
        folder: Where to; made if needed.
        manifest: What the bank is to be; ``constants`` and ``files`` are filled in here.
        ids: Ids of the samples in ascending order; ``None`` for 0, 1, 2, ...
        constants: Tensors that belong to no sample.

    Returns:
        The manifest that stands in the folder: this one, or an earlier one with the same key, columns and sizes.

    Raises:
        BankError: if the folder holds another bank, with the first things that differ; or cannot be written.
    """
    if sys.byteorder != "little":
        raise BankError("banks are written on little-endian machines only, and this one is big-endian")
    further: dict[str, bytes] = {}
    if ids is not None:
        further[_IDS] = ids.astype("<i8").tobytes()
    described = [{"dtype": str(c.dtype).removeprefix("torch."), "shape": list(c.shape)} for c in constants]
    if constants:
        parts = [c.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for c in constants]
        further[_CONSTANTS] = b"".join(parts)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in further.items()}
    values = {**manifest.__dict__, "constants": tuple(described), "files": digests}
    wanted = Manifest(**values)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MANIFEST).exists():
            foreign = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
            if set(foreign) - set(further):
                raise BankError(
                    f"{folder} holds other files ({', '.join(sorted(foreign)[:3])}) and no bank: choose a new folder"
                )
            for name, content in further.items():
                _write_once(folder / name, content, replace=True)
            content_ = wanted.content()
            text = json.dumps({**content_, "digest": hashlib.sha256(_canonical(content_)).hexdigest()}, indent=1)
            _write_once(folder / MANIFEST, text.encode(), replace=False)
    except OSError as error:
        raise BankError(f"{folder} cannot be written ({error}): choose another folder with --bank") from error
    found = read_manifest(folder)
    differing = differences(comparable(wanted), comparable(found))
    if differing:
        raise BankError(
            f"{folder} holds another bank: {'; '.join(differing[:3])}. Choose another folder with --bank, or delete "
            "this one"
        )
    return found


def comparable(manifest: Manifest) -> dict[str, Any]:
    """What two manifests must have in common to be the same bank: all but how they were written."""
    content = manifest.content()
    return {name: content[name] for name in ("key", "samples", "views", "columns", "taps", "files")}


def _write_once(path: Path, content: bytes, *, replace: bool) -> None:
    """Write a file in one piece; without ``replace``, a file that is there already stays."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.writing")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if replace:
        temporary.replace(path)
    else:
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # no hard links on this file system: the last of several equal writers wins
            temporary.replace(path)
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def differences(wanted: Any, found: Any, where: str = "") -> list[str]:
    """Say where two trees of plain data differ: what was expected and what the bank has."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        lines = []
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            inner = f"{where}.{key}" if where else str(key)
            lines += differences(wanted.get(key, "nothing"), found.get(key, "nothing"), inner)
        return lines
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = enumerate(zip(wanted, found, strict=True))
        return [line for number, (a, b) in pairs for line in differences(a, b, f"{where}[{number}]")]
    same = wanted == found or (isinstance(wanted, float) and math.isnan(wanted))
    return [] if same else [f"{where} is {_short(found)} in the bank and {_short(wanted)} now"]


def _short(value: Any, limit: int = 70) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left, once every shard of a bank is there."""
    for file in [*folder.glob(".*.writing"), *folder.glob(".*.lock")]:
        with contextlib.suppress(OSError):
            file.unlink()


__all__ = [
    "Bank",
    "Layout",
    "Manifest",
    "Shard",
    "ShardWriter",
    "claimed",
    "comparable",
    "create",
    "differences",
    "flatten",
    "leaf_numbers",
    "read_manifest",
    "remove_leftovers",
    "renumbered",
    "unflatten",
]
