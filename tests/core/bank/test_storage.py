"""Files of a bank: whole or absent, several writers, and a sentence for whatever is wrong with them."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck_core.bank import storage
from limbeck_core.bank.encodings import Column
from limbeck_core.bank.storage import (
    Bank,
    Manifest,
    Shard,
    ShardWriter,
    claimed,
    create,
    flatten,
    leaf_numbers,
    read_manifest,
    remove_leftovers,
    renumbered,
    unflatten,
)
from limbeck_core.errors import BankError

SAMPLES, VIEWS = 23, 2


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "key": {"teacher": {"weights": "abc"}, "seed": 3},
        "samples": SAMPLES,
        "views": VIEWS,
        "shard_samples": 10,
        "columns": (Column("inputs", (), "float32", "exact"), Column("fc", (4,), "float32", "float16")),
        "taps": ({"tap": ["fc", "output", None, None], "value": {"leaf": 1}},),
    }
    return Manifest(**(values | changes))


def value(position: int, view: int) -> Tensor:
    return (torch.arange(4.0) + 10 * position + 1000 * view).mul(1.1)


def kept(position: int, view: int) -> Tensor:
    return value(position, view).half().float()


def fill(folder: Path, made: Manifest, numbers: Any = None) -> None:
    for number in range(made.shards) if numbers is None else numbers:
        view, start, stop = made.place(number)
        with ShardWriter(folder, made, number) as writer:
            for first in range(start, stop, 3):
                rows = range(first, min(first + 3, stop))
                values = torch.stack([value(p, view) for p in rows])
                writer.append([values[:, 0], values])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    fill(folder, create(folder, manifest()))
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "bank")


def numbers(*found: int) -> Any:
    return np.array(found, dtype=np.int64)


class TestReading:
    def test_every_sample_and_view(self, written: Path) -> None:
        bank = Bank(written)
        positions = np.repeat(np.arange(SAMPLES), VIEWS)
        views = np.tile(np.arange(VIEWS), SAMPLES)
        order = np.random.RandomState(0).permutation(len(positions))
        found = bank.read(1, positions[order], views[order])
        wanted = torch.stack([value(int(p), int(v)) for p, v in zip(positions[order], views[order], strict=True)])
        assert torch.equal(found, wanted.half().float())

    def test_repeated_and_no_samples(self, written: Path) -> None:
        bank = Bank(written)
        assert torch.equal(bank.read(1, numbers(4, 4), numbers(0, 0))[0], kept(4, 0))
        assert bank.read(1, numbers(), numbers()).shape == (0, 4)

    def test_sizes_are_those_on_the_disk(self, written: Path) -> None:
        found = Bank(written).manifest
        files = sorted(written.glob("view*.bank"))
        assert len(files) == found.shards == 6
        assert sum(f.stat().st_size for f in files) == found.size
        assert found.record_size == 4 + 4 * 2

    def test_a_foreign_sample(self, written: Path) -> None:
        with pytest.raises(
            BankError, match=r"sample 23 is not in the bank in .*, which holds 23 samples with ids from 0"
        ):
            Bank(written).positions(numbers(1, 23))

    def test_named_samples(self, tmp_path: Path) -> None:
        ids = np.sort(np.random.RandomState(1).choice(1000, SAMPLES, replace=False)).astype(np.int64)
        fill(tmp_path, create(tmp_path, manifest(), ids))
        bank = Bank(tmp_path)
        assert (bank.positions(ids[::-1]) == np.arange(SAMPLES)[::-1]).all()
        for foreign in (-1, 1001, int(next(i for i in range(1000) if i not in ids))):
            with pytest.raises(BankError, match=f"sample {foreign} is not in the bank"):
                bank.positions(numbers(int(ids[0]), foreign))

    def test_errors_are_measured(self, written: Path) -> None:
        largest, mean = Bank(written).errors()[1]
        whole = torch.stack([value(p, v) for p in range(SAMPLES) for v in range(VIEWS)])
        off = (whole - whole.half().float()).abs().amax(1)
        assert largest == float(off.max()) > 0
        assert mean == pytest.approx(float(off.mean()))

    def test_constants(self, tmp_path: Path) -> None:
        constants = [torch.randn(2, 3), torch.arange(4), torch.tensor(True)]
        create(tmp_path, manifest(), None, constants)
        assert all(torch.equal(a, b) for a, b in zip(Bank(tmp_path).constants(), constants, strict=True))
        assert Bank(tmp_path).manifest.constants[1] == {"dtype": "int64", "shape": [4]}

    def test_a_bank_can_be_sent_to_another_process(self, written: Path) -> None:
        bank = Bank(written)
        bank.read(1, numbers(2), numbers(1))
        sent = pickle.dumps(bank)
        assert len(sent) < 500, "the files are not in it"
        again = pickle.loads(sent)
        assert torch.equal(again.read(1, numbers(2), numbers(1))[0], kept(2, 1))


class TestWriting:
    def test_nothing_stands_under_a_name_before_it_is_whole(self, tmp_path: Path) -> None:
        made = create(tmp_path, manifest())
        with ShardWriter(tmp_path, made, 0) as writer:
            rows = torch.stack([value(p, 0) for p in range(10)])
            writer.append([rows[:, 0], rows])
            assert Bank(tmp_path).missing() == list(range(6))
        assert Bank(tmp_path).missing() == [1, 2, 3, 4, 5]

    def test_an_error_leaves_nothing_behind(self, tmp_path: Path) -> None:
        made = create(tmp_path, manifest())
        with pytest.raises(BankError, match="fc: a value of size 1e"), ShardWriter(tmp_path, made, 0) as writer:
            writer.append([torch.zeros(2), torch.full((2, 4), 1e6)])
        with pytest.raises(BankError, match="should hold 10 rows and got 0"), ShardWriter(tmp_path, made, 0):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        made = create(tmp_path, manifest())

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(
            BankError, match=r"view0-00000.bank could not be written .*No space left.* Free space on that"
        ):
            fill(tmp_path, made, [0])
        assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(BankError, match="file cannot be written .*choose another folder with --bank"):
            create(tmp_path / "file", manifest())

    def test_a_folder_with_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("")
        with pytest.raises(BankError, match=r"holds other files \(thesis.tex\) and no bank: choose a new folder"):
            create(tmp_path, manifest())

    def test_joining_needs_the_same_key(self, folder: Path) -> None:
        assert create(folder, manifest(shard_samples=7)).shard_samples == 10
        other = manifest(key={"teacher": {"weights": "xyz"}, "seed": 3}, views=3)
        sentence = (
            "holds another bank: key.teacher.weights is abc in the bank and xyz now; views is 2 in the bank and 3 now"
        )
        with pytest.raises(BankError, match=sentence):
            create(folder, other)

    def test_one_writer_a_shard(self, folder: Path) -> None:
        made = read_manifest(folder)
        with claimed(folder, made, 1) as mine:
            assert mine
            with claimed(folder, made, 1) as theirs, claimed(folder, made, 2) as other:
                assert (theirs, other) == (False, True)
        with claimed(folder, made, 1) as again:
            assert again
        remove_leftovers(folder)
        assert not list(folder.glob(".*"))

    def test_a_killed_writer_loses_its_shard_and_its_lock(self, tmp_path: Path) -> None:
        made = create(tmp_path, manifest())
        context = multiprocessing.get_context("fork")
        ready = context.Event()

        def die() -> None:
            fill(tmp_path, made, [0])
            with claimed(tmp_path, made, 1), ShardWriter(tmp_path, made, 1) as writer:
                writer.append([torch.zeros(3), torch.zeros(3, 4)])
                ready.set()
                signal.pause()

        child = context.Process(target=die)
        child.start()
        assert ready.wait(30)
        with claimed(tmp_path, made, 1) as free:
            assert not free
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert Bank(tmp_path).missing() == [1, 2, 3, 4, 5]
        with claimed(tmp_path, made, 1) as free:
            assert free
            fill(tmp_path, made, [1])
        Shard(tmp_path / made.name(1), made, 1).check_all()


class TestWhatIsWrong:
    def test_no_bank(self, tmp_path: Path) -> None:
        with pytest.raises(
            BankError, match=r"holds no teacher bank \(it has no manifest.json\): write one with 'limbeck"
        ):
            Bank(tmp_path)
        with pytest.raises(BankError, match="holds no teacher bank"):
            Bank(tmp_path / "nowhere")

    def test_banks_of_several_teachers(self, written: Path, tmp_path: Path) -> None:
        for name in ("big", "small"):
            shutil.copytree(written, tmp_path / name)
        with pytest.raises(BankError, match="holds the banks of several teachers, big, small: name the folder of one"):
            Bank(tmp_path)

    def test_an_unfinished_bank(self, folder: Path) -> None:
        (folder / "view0-00001.bank").unlink()
        bank = Bank(folder)
        assert bank.read(1, numbers(0), numbers(0)).shape == (1, 4)
        sentence = "is not finished: 1 of its 6 shards are missing, the first is view0-00001.bank: give 'limbeck bank'"
        with pytest.raises(BankError, match=sentence):
            bank.read(1, numbers(12), numbers(0))

    def test_a_cut_shard(self, folder: Path) -> None:
        path = folder / "view1-00000.bank"
        os.truncate(path, 100)
        with pytest.raises(BankError, match=r"view1-00000.bank has 100 bytes and should have \d+, it was cut off"):
            Bank(folder).read(1, numbers(0), numbers(1))

    def test_an_empty_shard(self, folder: Path) -> None:
        os.truncate(folder / "view1-00000.bank", 0)
        with pytest.raises(BankError, match="has 0 bytes and should have"):
            Bank(folder).read(1, numbers(0), numbers(1))

    def test_a_shard_in_another_place(self, folder: Path) -> None:
        shutil.copy(folder / "view0-00000.bank", folder / "view0-00001.bank")
        with pytest.raises(
            BankError, match=r"view0-00001.bank belongs to another bank or place than the manifest.json"
        ):
            Bank(folder).read(1, numbers(10), numbers(0))

    def test_a_shard_of_another_bank(self, folder: Path, tmp_path: Path) -> None:
        other = create(tmp_path / "other", manifest(key={"seed": 4}))
        fill(tmp_path / "other", other, [0])
        shutil.copy(tmp_path / "other" / "view0-00000.bank", folder)
        with pytest.raises(BankError, match="belongs to another bank"):
            Bank(folder).read(1, numbers(0), numbers(0))

    def test_a_damaged_row_is_named(self, folder: Path) -> None:
        damage(folder / "view1-00001.bank", 64 + 10 * 4 + 5)  # the second column of the 11th sample
        bank = Bank(folder)
        assert bank.read(0, numbers(10), numbers(1)).shape == (1,)
        with pytest.raises(BankError, match=r"view1-00001.bank is damaged: fc of samples 10 to 19 \(view 1\) does not"):
            bank.read(1, numbers(10), numbers(1))
        (found,) = bank.complaints()
        assert found[0] == 4

    def test_a_newer_format(self, folder: Path) -> None:
        path = folder / "manifest.json"
        content = json.loads(path.read_text()) | {"format": 2}
        content.pop("digest")
        digest = storage.hashlib.sha256(storage._canonical(content)).hexdigest()
        path.write_text(json.dumps(content | {"digest": digest}))
        with pytest.raises(BankError, match=r"has bank format 2, and this version of limbeck-core reads 1: install"):
            Bank(folder)

    @pytest.mark.parametrize("name", ["ids.bin", "constants.bin"])
    def test_damaged_further_files(self, tmp_path: Path, name: str) -> None:
        create(tmp_path, manifest(), np.arange(5, 5 + SAMPLES), [torch.ones(3)])
        damage(tmp_path / name, 4)
        with pytest.raises(BankError, match=f"{name} is damaged or of another bank"):
            Bank(tmp_path).constants()
        (tmp_path / name).unlink()
        with pytest.raises(BankError, match=f"{name} cannot be read"):
            Bank(tmp_path).constants()


def damage(path: Path, position: int, mask: int = 0x10) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= mask
    path.write_bytes(content)


fuzzed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestDamage:
    """Whatever happens to the bytes: a sentence, no other exception, and no wrong number."""

    @fuzzed
    @given(data=st.data())
    def test_any_flipped_bits(self, folder: Path, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(p for p in folder.iterdir())))
        before = path.read_bytes()
        position = data.draw(st.integers(0, len(before) - 1))
        damage(path, position, data.draw(st.integers(1, 255)))
        try:
            self.read_all(folder)
        finally:
            path.write_bytes(before)

    @fuzzed
    @given(data=st.data())
    def test_any_replaced_or_cut_content(self, folder: Path, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(p for p in folder.iterdir())))
        before = path.read_bytes()
        middle = data.draw(st.binary(max_size=80))
        start = data.draw(st.integers(0, len(before)))
        after = before[:start] + middle + (before[start + len(middle) :] if data.draw(st.booleans()) else b"")
        path.write_bytes(after)
        try:
            self.read_all(folder, damaged=after != before)
        finally:
            path.write_bytes(before)

    @staticmethod
    def read_all(folder: Path, *, damaged: bool = True) -> None:
        """Every value is right, or there is a BankError."""
        positions, views = np.repeat(np.arange(SAMPLES), VIEWS), np.tile(np.arange(VIEWS), SAMPLES)
        wanted = torch.stack([value(int(p), int(v)) for p, v in zip(positions, views, strict=True)]).half().float()
        try:
            bank = Bank(folder)
            found = bank.read(1, positions, views)
        except BankError:
            return
        assert torch.equal(found, wanted)
        if damaged:  # in a column that was not asked for, or in white space of the manifest
            assert list(bank.complaints()) or Bank(folder).manifest == manifest()

    @settings(max_examples=150, deadline=None)
    @given(
        value=st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
            max_leaves=12,
        ),
        name=st.sampled_from(["samples", "views", "shard_samples", "columns", "taps", "constants", "files", "key"]),
    )
    def test_any_content_of_a_manifest_with_a_right_digest(
        self, tmp_path_factory: pytest.TempPathFactory, value: Any, name: str
    ) -> None:
        folder = tmp_path_factory.mktemp("bank")
        content = manifest().content() | {name: value}
        digest = storage.hashlib.sha256(storage._canonical(content)).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(content | {"digest": digest}))
        try:
            bank = Bank(folder)
            bank.constants()
            bank.positions(numbers(0))
            bank.read(0, numbers(0), numbers(0))
        except BankError:
            pass


class TestStructures:
    VALUE = {"a": [torch.ones(1), (torch.zeros(2), None)], "b": {1: torch.arange(3), "c": "text"}, "d": 2.5}

    def test_there_and_back(self) -> None:
        leaves: list[Tensor] = []
        structure = json.loads(json.dumps(flatten(self.VALUE, leaves)))
        assert leaf_numbers(structure) == [0, 1, 2]
        again = unflatten(structure, leaves)
        assert again["a"][0] is leaves[0]
        assert isinstance(again["a"][1], tuple)
        assert again["a"][1][1] is None
        assert again["b"][1] is leaves[2]
        assert (again["b"]["c"], again["d"]) == ("text", 2.5)

    def test_leaves_can_be_numbered_anew(self) -> None:
        structure = flatten(self.VALUE, [])
        assert leaf_numbers(renumbered(structure, [7, -1, 3])) == [7, -1, 3]

    @pytest.mark.parametrize(
        ("value", "sentence"),
        [
            (object(), r"a tap reads a builtins.object, and a bank stores tensors"),
            ({(1, 2): torch.ones(1)}, r"a tapped mapping has the key \(1, 2\)"),
        ],
    )
    def test_refused(self, value: Any, sentence: str) -> None:
        with pytest.raises(BankError, match=sentence):
            flatten(value, [])


def test_checksums_are_those_of_zlib(written: Path) -> None:
    """Of the format, not of this program."""
    path = written / "view0-00002.bank"
    content = path.read_bytes()
    rows = content[64 : 64 + 3 * 4]
    foot = 64 + 3 * 12 + 2 * 16
    assert int.from_bytes(content[foot : foot + 4], "little") == zlib.crc32(rows)
    assert int.from_bytes(content[-4:], "little") == zlib.crc32(content[:64] + content[64 + 3 * 12 : -4])
