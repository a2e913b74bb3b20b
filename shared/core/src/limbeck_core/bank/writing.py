"""Writing a bank: the teachers see every view of the data once, in any number of processes, from where it stopped."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from limbeck_core.bank.encodings import Column, TopScores, column_of, is_encoding, with_temperature
from limbeck_core.bank.fingerprint import describe_transforms, refuse_unrepeatable, sketch, teacher_key
from limbeck_core.bank.storage import (
    MANIFEST,
    SHARDS,
    Bank,
    Manifest,
    Numbers,
    Shard,
    ShardWriter,
    claimed,
    comparable,
    create,
    differences,
    flatten,
    read_manifest,
    remove_leftovers,
    renumbered,
)
from limbeck_core.bank.teacher import SKETCH, coordinates
from limbeck_core.distiller import Distiller
from limbeck_core.engine.reseed import Reseeder, refuse_unseeded
from limbeck_core.engine.sampler import Key, build_dataloader, fetch, identities, loader_options
from limbeck_core.errors import BankError, ConfigError, NonFiniteError, closest
from limbeck_core.fast_teacher import FastTeacher
from limbeck_core.match import Match
from limbeck_core.tap import Tap, resolve
from limbeck_core.teacher import FrozenTeacher

Progress = Callable[[int, int], None]
_OWN_OPTIONS = ("sampler", "batch_sampler", "drop_last", "views", "view_seed")


class TapSize(NamedTuple):
    """One line of what a bank is going to hold.

    Args:
        teacher: Name of the teacher.
        column: The tensor.
        size: Bytes a sample and view.
        bound: Largest error of the encoding, as text.
    """

    teacher: str
    column: Column
    size: int
    bound: str


@dataclass
class Part:
    """The bank of one teacher.

    Args:
        teacher: Its name in the distiller.
        folder: Where the bank is.
        manifest: What it is to be; what stands in the folder once writing began.
        constants: Tensors that belong to no sample.
    """

    teacher: str
    folder: Path
    manifest: Manifest
    constants: list[Tensor] = field(default_factory=list)


class _ShardBatches(Sampler[list[int]]):
    """Batches of the samples between two positions, in order."""

    def __init__(self, order: Numbers, batch_size: int) -> None:
        self.order, self.batch_size = order, batch_size
        self.start, self.stop = 0, len(order)

    def __len__(self) -> int:
        return math.ceil((self.stop - self.start) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(self.start, self.stop, self.batch_size):
            yield self.order[first : min(first + self.batch_size, self.stop)].tolist()


class BankWriter:
    """Writes what the frozen teachers of a distiller say of every sample and view.

    Args:
        distiller: On the device that is to be used. Its taps say what is stored.
        data: The training data, as :func:`~limbeck_core.engine.sampler.build_dataloader` takes them: a mapping or a
            loader. Sampler and ``drop_last`` have no effect.
        folder: Where to; of several teachers each gets a folder of its name in it.
        views: Random views of each sample; epoch e of a run shows view ``e % views``.
        seed: Seed of the views. Runs that read the bank share it, whatever their own seed.
        encoding: How tensors are stored (see :mod:`limbeck_core.bank.encodings`): one for all, or a mapping from tap to
            encoding, in which ``"*"`` stands for the rest.
        batch_size: Samples the teachers take at once; by default as many as training takes, so that they compute
            exactly the same.
        collate_fn: Used instead of the loader's, where that mixes samples.

    Raises:
        BankError: if there is no frozen teacher that a match reads.
        ConfigError: for an encoding that does not exist, or a number that is not a whole number >= 1.
    """

    def __init__(
        self,
        distiller: Distiller,
        data: Mapping[str, Any] | DataLoader[Any],
        folder: str | Path,
        *,
        views: int = 1,
        seed: int = 0,
        encoding: str | Mapping[str, str] = "exact",
        batch_size: int | None = None,
        collate_fn: Callable[[Any], Any] | None = None,
    ) -> None:
        self.distiller = distiller
        self.folder = Path(folder)
        self.views, self.seed, self.encoding = views, seed, encoding
        for name, value in (("views", views), ("batch_size", 1 if batch_size is None else batch_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} of a bank must be a whole number >= 1, got {value!r}")
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ConfigError(f"seed of a bank must be a whole number >= 0, got {seed!r}")
        self.teachers = self._frozen()
        options = {k: v for k, v in loader_options(data).items() if k not in _OWN_OPTIONS}
        size = batch_size if batch_size is not None else options.get("batch_size")
        if size is None:
            raise ConfigError(
                "the training loader has no batch_size, so the bank needs its own: bank = dict(batch_size=...)"
            )
        if collate_fn is not None:
            options["collate_fn"] = collate_fn
        plain = build_dataloader({**options, "batch_size": size}, seed=seed, training=False)
        seeded: Any = plain.dataset
        self.dataset: Any = seeded.dataset
        self._found_ids = identities(self.dataset)
        count = len(self.dataset)
        self._named = self._found_ids is not None and bool((self._found_ids != np.arange(count)).any())
        self._batches = _ShardBatches(np.arange(count), int(size))
        if self._named and self._found_ids is not None:
            self._batches.order = np.argsort(self._found_ids, kind="stable")
        self.batch_size = int(size)
        options |= {"dataset": self.dataset, "batch_sampler": self._batches}
        options.pop("batch_size", None)
        self.loader = build_dataloader({**options, "views": views, "view_seed": seed}, seed=seed, training=False)
        self.parts: list[Part] = []

    def _frozen(self) -> list[str]:
        recorded = self.distiller._recorders
        names = [
            name
            for name, teacher in self.distiller.teachers.items()
            if isinstance(teacher, FrozenTeacher) and recorded[name].taps
        ]
        if not names:
            kinds = ", ".join(f"{n} ({type(t).__name__})" for n, t in self.distiller.teachers.items()) or "none"
            raise BankError(
                f"a bank holds what frozen teachers say, and this distiller has none that a match reads (its teachers: "
                f"{kinds}): a teacher that changes while the student learns cannot be written down"
            )
        return names

    # ------------------------------------------------------------------ planning

    def plan(self) -> list[TapSize]:
        """Run the teachers on the first batch and say what the bank is going to hold. Nothing is written.

        Returns:
            One line a tensor; :attr:`parts` holds the rest, with ``manifest.size`` in bytes.

        Raises:
            BankError: if a transform cannot be seeded, the batch is mixed, or a value cannot be stored.
        """
        refuse_unseeded(Reseeder(self.dataset))
        for position in self._batches.order[:2].tolist():
            first, second = (self.loader.dataset[Key(position, 0)] for _ in range(2))
            refuse_unrepeatable(first, second, self.dataset, f"sample {position}")
        keys = {name: teacher_key(self.distiller.teachers[name]) for name in self.teachers}
        self._adopt_speedups()
        batch, ids = self._first_batch()
        found = self.distiller.read_teachers(batch, self.teachers)
        per_view = max(1, SHARDS // self.views)
        full = -(-len(self.dataset) // per_view)
        self.parts = []
        for name in self.teachers:
            columns, taps, constants = self._columns(name, found[name], len(ids))
            manifest = Manifest(
                key={
                    "teacher": {
                        **keys[name],
                        "speedups": list(getattr(self.distiller.teachers[name], "choice", None) or []),
                        "view": self.distiller.view_of(name),
                    },
                    "seed": self.seed,
                    "data": {
                        "transforms": describe_transforms(self.dataset),
                        "ids": "named" if self._named else "positions",
                    },
                },
                samples=len(self.dataset),
                views=self.views,
                shard_samples=-(-full // self.batch_size) * self.batch_size,
                columns=(Column(SKETCH, (), "float32", "exact"), *columns),
                taps=tuple(taps),
                about={
                    "teacher": name,
                    "batch_size": self.batch_size,
                    "threads": torch.get_num_threads(),
                    "torch": torch.__version__,
                    "device": str(self.distiller._device()),
                },
            )
            self.parts.append(Part(name, self._folder_of(name), manifest, constants))
        return [
            TapSize(part.teacher, column, codec.size, codec.bound)
            for part in self.parts
            for column, codec in ((column, column.codec()) for column in part.manifest.columns)
        ]

    def _first_batch(self) -> tuple[Mapping[str, Any], Numbers]:
        self._batches.start, self._batches.stop = 0, min(self.batch_size, len(self.dataset))
        batch = next(self._stream(0))
        asked = self._batches.order[: self._batches.stop]
        if self._named and _equal(batch.get("ids"), asked):
            # the attribute 'ids' is about something else, such as the images of a detection set
            self._named, self._batches.order = False, np.arange(len(self.dataset))
            return self._first_batch()
        if self._named and self._found_ids is not None and len(np.unique(self._found_ids)) < len(self._found_ids):
            raise BankError(
                f"{len(self._found_ids)} samples share {len(np.unique(self._found_ids))} ids, so a bank cannot tell "
                "them apart: give each sample an id of its own"
            )
        return batch, self._checked_ids(batch, asked)

    def _folder_of(self, name: str) -> Path:
        return self.folder if len(self.teachers) == 1 else self.folder / name

    def _adopt_speedups(self) -> None:
        """Let a teacher that chooses how it runs run as it did when the bank was begun."""
        for name in self.teachers:
            teacher = self.distiller.teachers[name]
            folder = self._folder_of(name)
            if isinstance(teacher, FastTeacher) and (folder / MANIFEST).exists():
                teacher.choose(read_manifest(folder).key["teacher"]["speedups"])

    def _stream(self, view: int) -> Iterator[Mapping[str, Any]]:
        self.loader.batch_sampler.seek(view)  # type: ignore[union-attr]
        iterator = iter(self.loader)
        for _ in range(len(self.loader)):
            batch = self.distiller.data_preprocessor(fetch(iterator), True)
            if not isinstance(batch, Mapping):
                raise BankError(
                    f"a bank needs batches that are mappings, with the samples' ids in them; this loader gives "
                    f"{type(batch).__name__}: return a mapping from collate_fn"
                )
            if "mix_weight" in batch:
                raise BankError(
                    "the loader mixes samples (mixup or CutMix), and a bank holds what the teacher says of unmixed "
                    "ones: give the bank a collate_fn that stacks, bank = dict(collate_fn=limbeck_core.engine.stack)"
                )
            yield batch

    def _checked_ids(self, batch: Mapping[str, Any], positions: Numbers) -> Numbers:
        """Ids of a batch, which must be those of the data set, or positions in it."""
        found = batch.get("ids")
        try:
            ids = torch.as_tensor(found).cpu().numpy().astype(np.int64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise BankError(
                f"ids of the batch must be whole numbers, one a sample, got {type(found).__name__}: let the data set "
                "return its position, or nothing"
            ) from error
        expected = self._found_ids[positions] if self._named and self._found_ids is not None else positions
        if not np.array_equal(ids, expected):
            raise BankError(
                f"the batch has the ids {ids[:4].tolist()}..., and the data set was asked for the samples "
                f"{expected[:4].tolist()}...: ids must be positions in the data set, or stand in its attribute 'ids'"
            )
        return ids

    def _columns(
        self, teacher: str, values: Mapping[Tap, Any], count: int
    ) -> tuple[list[Column], list[Mapping[str, Any]], list[Tensor]]:
        model = self.distiller.teachers[teacher].model
        columns: list[Column] = []
        constants: list[Tensor] = []
        taps: dict[str, Mapping[str, Any]] = {}
        self._check_encodings(values)
        for tap, value in values.items():
            where = coordinates(tap)
            if str(where) in taps:
                continue
            parts: list[Tensor] = []
            structure = flatten(value, parts)
            numbers = []
            for number, part in enumerate(parts):
                name = _plain_name(tap) + (f"[{number}]" if len(parts) > 1 else "")
                if isinstance(resolve(model, tap.path, teacher), Tensor):
                    constants.append(part.detach().cpu())
                    numbers.append(-len(constants))
                    continue
                if not part.ndim or len(part) != count:
                    raise BankError(
                        f"tap '{tap}' reads a tensor of shape {tuple(part.shape)} from a batch of {count} samples: a "
                        f"bank looks tensors up by sample, so the first axis must be the {count} samples"
                    )
                column = column_of(name, part, self._encoding_of(tap, teacher))
                column.codec()
                columns.append(column)
                numbers.append(len(columns))  # after the sketch
            taps[str(where)] = {"tap": where, "value": renumbered(structure, numbers)}
        return columns, list(taps.values()), constants

    def _check_encodings(self, values: Mapping[Tap, Any]) -> None:
        if not isinstance(self.encoding, Mapping):
            return
        known = ["*", *(_plain_name(tap) for tap in values)]
        everywhere = [
            "*",
            *(_plain_name(tap) for name in self.teachers for tap in self.distiller._recorders[name].taps),
        ]
        for name in self.encoding:
            if name not in everywhere:
                raise ConfigError(f"encoding of a bank names the tap {name!r}: {closest(name, known)}")

    def _encoding_of(self, tap: Tap, teacher: str) -> str:
        name = _plain_name(tap)
        one_for_all = not isinstance(self.encoding, Mapping)
        chosen = (
            self.encoding
            if isinstance(self.encoding, str)
            else self.encoding.get(name, self.encoding.get("*", "exact"))
        )
        if not is_encoding(chosen):
            known = ["exact", "float32", "float16", "bfloat16", "top16", "top16@4"]
            raise ConfigError(f"a bank has no encoding {chosen!r} (asked for {name!r}): {closest(chosen, known)}")
        if not chosen.startswith("top"):
            return chosen
        readers = [match for match in self._matches() if tap in match.taps]
        if one_for_all and not all(match.compares_logits for match in readers):
            raise ConfigError(
                f"the encoding {chosen} keeps the largest class scores, and tap {name!r} is read by a match that does "
                f"not compare scores: name encodings by tap, bank.encoding=dict(fc={chosen!r}, {name}='float16')"
            )
        temperatures = {_temperature(match) for match in readers}
        return with_temperature(chosen, temperatures.pop() if len(temperatures) == 1 else 1.0)

    def _matches(self) -> list[Match]:
        return [match for match in self.distiller.matches.values() if isinstance(match, Match)]

    # ------------------------------------------------------------------ writing

    def write(self, progress: Progress | None = None) -> bool:
        """Write every shard that is missing or damaged and that no other process is writing.

        Args:
            progress: Called with samples done and samples in all (views counted) after each batch and skipped shard.

        Returns:
            Whether the banks are whole now; if not, other processes are writing the rest.

        Raises:
            BankError: if a folder holds another bank, the disk is too small or full, or a value does not fit.
        """
        if not self.parts:
            self.plan()
        self._check_space()
        for part in self.parts:
            part.manifest = create(part.folder, part.manifest, self._sorted_ids(), part.constants)
        manifest = self.parts[0].manifest
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        shards = range(manifest.shards)
        # each process begins with shards of its own and helps the others when it is done
        order = [n for offset in range(world) for n in shards if n % world == (rank + offset) % world]
        total, done = manifest.samples * manifest.views, 0
        for number in order:
            with contextlib.ExitStack() as stack:
                free = [stack.enter_context(claimed(part.folder, part.manifest, number)) for part in self.parts]
                todo = [part for part in self.parts if _wants_writing(part, number)] if all(free) else []
                if todo:
                    for count in self._write_shard(todo, number):
                        if progress is not None:
                            progress(done + count, total)
            done += manifest.rows(number)
            if progress is not None:
                progress(done, total)
        whole = not any(Bank(part.folder).missing() for part in self.parts)
        if whole:
            for part in self.parts:
                remove_leftovers(part.folder)
        return whole

    def _sorted_ids(self) -> Numbers | None:
        return self._found_ids[self._batches.order] if self._named and self._found_ids is not None else None

    def _all_ids(self) -> Numbers:
        found = self._sorted_ids()
        return np.arange(len(self.dataset)) if found is None else found

    def _check_space(self) -> None:
        needed = sum(
            part.manifest.size - sum(path.stat().st_size for path in part.folder.glob("view*.bank"))
            for part in self.parts
        )
        place = next(path for path in (self.folder, *self.folder.absolute().parents) if path.is_dir())
        free = shutil.disk_usage(place).free
        if needed > free:
            raise BankError(
                f"the bank needs {size_text(needed)} more and the disk of {self.folder} has {size_text(free)} free: "
                "choose another folder with --bank, fewer views, or an encoding such as float16 or top16"
            )

    def _write_shard(self, parts: Sequence[Part], number: int) -> Iterator[int]:
        """Write one shard of each part; yield how many of its samples are done."""
        view, start, stop = parts[0].manifest.place(number)
        self._batches.start, self._batches.stop = start, stop
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(ShardWriter(part.folder, part.manifest, number)) for part in parts]
            done = start
            for batch in self._stream(view):
                upto = min(done + self.batch_size, stop)
                ids = self._checked_ids(batch, self._batches.order[done:upto])
                found = self._encode_ready(batch, ids, parts)
                for writer, values in zip(writers, found, strict=True):
                    writer.append(values)
                done = upto
                yield done - start

    def _encode_ready(self, batch: Mapping[str, Any], ids: Numbers, parts: Sequence[Part]) -> list[list[Tensor]]:
        """The tensors of each part's columns on the CPU, checked against the manifest."""
        names = [part.teacher for part in parts]
        found = self.distiller.read_teachers(batch, names)
        ready = []
        for part in parts:
            sketches, _ = sketch(batch.get(self.distiller.view_of(part.teacher)), len(ids))
            values = [sketches.cpu(), *self._tensors(part, found[part.teacher])]
            for column, value in zip(part.manifest.columns, values, strict=True):
                if tuple(value.shape) != (len(ids), *column.shape) or str(value.dtype) != f"torch.{column.dtype}":
                    raise BankError(
                        f"{column.name} of samples {int(ids[0])}... has shape {tuple(value.shape)} and type "
                        f"{value.dtype}, and the first batch had {column.shape} and {column.dtype} a sample: a bank "
                        "holds tensors of one size; resize or pad the inputs to one size"
                    )
                bad = torch.isnan(value).reshape(len(value), -1).any(1) if value.is_floating_point() else None
                if bad is not None and bool(bad.any()):
                    raise NonFiniteError(
                        f"teacher {part.teacher!r} says NaN at {column.name} of sample {int(ids[bad.numpy()][0])}: "
                        "check its weights and its inputs; nothing of this batch was written"
                    )
            ready.append(values)
        return ready

    def _tensors(self, part: Part, values: Mapping[Tap, Any]) -> list[Tensor]:
        model, seen, found = self.distiller.teachers[part.teacher].model, set(), []
        for tap, value in values.items():
            where = str(coordinates(tap))
            if where in seen or isinstance(resolve(model, tap.path, part.teacher), Tensor):
                continue
            seen.add(where)
            leaves: list[Tensor] = []
            flatten(value, leaves)
            found += [leaf.detach().cpu() for leaf in leaves]
        return found

    # ------------------------------------------------------------------ verifying

    def verify(self, *, batches: int = 2, progress: Progress | None = None) -> list[str]:
        """Look at every byte of the banks, and ask the teachers again on a few batches. Nothing is written.

        Args:
            batches: How many batches the teachers are asked again, evenly spread.
            progress: Called with shards looked at and shards in all.

        Returns:
            What is wrong, one sentence each; nothing if all is well.

        Raises:
            BankError: if there is no bank, or it is of another teacher, data set or seed, with what differs.
        """
        if not self.parts:
            self.plan()
        complaints: list[str] = []
        for part in self.parts:
            bank = Bank(part.folder)
            wanted, there = comparable(part.manifest), comparable(bank.manifest)
            del wanted["files"], there["files"]
            differing = differences(wanted, there)
            if not differing and not np.array_equal(bank.ids, self._all_ids()):
                differing = ["its samples have other ids"]
            if differing:
                raise BankError(
                    f"{part.folder} holds another bank than this config describes: {'; '.join(differing[:3])}"
                )
            bank.constants()
            damaged = dict(bank.complaints())
            complaints += damaged.values()
            whole = [number for number in range(bank.manifest.shards) if number not in damaged]
            chosen = whole[:: max(1, len(whole) // batches)][:batches] if whole else []
            for done, number in enumerate(chosen):
                complaints += self._asked_again(part, bank, number)
                if progress is not None:
                    progress(done + 1, len(chosen))
        return complaints

    def _asked_again(self, part: Part, bank: Bank, number: int) -> list[str]:
        view, start, stop = bank.manifest.place(number)
        self._batches.start, self._batches.stop = start, min(start + self.batch_size, stop)
        batch = next(self._stream(view))
        ids = self._checked_ids(batch, self._batches.order[start : self._batches.stop])
        (values,) = self._encode_ready(batch, ids, [part])
        positions = np.arange(start, self._batches.stop)
        found = []
        for column, value in enumerate(values):
            described = bank.manifest.columns[column]
            codec = described.codec()
            stored = bank.read(column, positions, np.full(len(positions), view))
            expected = codec.decode(codec.encode(value))
            close = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(described.encoding, 1e-5)
            if isinstance(codec, TopScores):
                close = 2.0**-9
            scale = float(expected[torch.isfinite(expected)].abs().max()) if expected.is_floating_point() else 0.0
            if not torch.allclose(stored.double(), expected.double(), rtol=close, atol=close * scale + 1e-12):
                worst = float((stored.double() - expected.double()).abs().max())
                found.append(
                    f"{bank.folder}: {described.name} of samples {int(ids[0])}... (view {view}) is {worst:.3g} away "
                    "from what the teacher says now: the teacher, the data or a library is another one; write the bank "
                    "anew"
                )
        return found


def _wants_writing(part: Part, number: int) -> bool:
    path = part.folder / part.manifest.name(number)
    if not path.exists():
        return True
    try:
        Shard(path, part.manifest, number).check_all()
    except BankError:
        return True
    return False


def _equal(ids: Any, positions: Numbers) -> bool:
    return isinstance(ids, Tensor) and np.array_equal(ids.cpu().numpy(), positions)


def _plain_name(tap: Tap) -> str:
    """How a tap is called where its owner is understood."""
    name = str(Tap(tap.path, pick=tap.pick))
    side = "" if tap.at == "output" else ":input"
    call = "" if tap.call is None else f":call={tap.call}"
    return (name or "output") + side + call


def _temperature(match: Match) -> float:
    found = getattr(match.loss, "teacher_temperature", None) or getattr(match.loss, "temperature", None)
    return float(found) if isinstance(found, (int, float)) else 1.0


def size_text(size: float) -> str:
    """Return a number of bytes as text with a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


__all__ = ["BankWriter", "Part", "TapSize", "size_text"]
