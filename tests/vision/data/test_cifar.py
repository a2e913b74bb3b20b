"""CIFAR in torchvision's layout: read alike, damaged files named, and no pickle trusted."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from limbeck_core.errors import DataError
from limbeck_vision.data import CIFAR10, CIFAR100, crop_and_flip
from limbeck_vision.data.cifar import read_pickle

FILES = {
    CIFAR10: (["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"], ["test_batch"]),
    CIFAR100: (["train"], ["test"]),
}


def write(folder: Path, name: str, content: Any, protocol: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(content, protocol))


def make(root: Path, kind: type[CIFAR10] | type[CIFAR100], protocol: int = 2, images: int = 4) -> Path:
    folder = root / kind.folder
    draw = np.random.RandomState(0)
    for name in FILES[kind][0] + FILES[kind][1]:
        data = draw.randint(0, 256, (images, 3072)).astype(np.uint8)
        labels = draw.randint(0, kind.number_of_classes, images).tolist()
        write(folder, name, {"data": data, kind.labels_key: labels, "filenames": ["x.png"] * images}, protocol)
    write(folder, kind.names_file, {kind.names_key: [f"class {i}" for i in range(kind.number_of_classes)]}, protocol)
    return root


def theirs(kind: type[CIFAR10] | type[CIFAR100], root: Path, train: bool) -> Any:
    """torchvision's reader, with the digests of our files."""

    def digest(name: str) -> str:
        return hashlib.md5((root / kind.folder / name).read_bytes()).hexdigest()

    base = getattr(torchvision.datasets, kind.__name__)
    train_files, test_files = FILES[kind]
    meta = {"filename": kind.names_file, "key": kind.names_key, "md5": digest(kind.names_file)}
    lists = {
        "train_list": [[name, digest(name)] for name in train_files],
        "test_list": [[name, digest(name)] for name in test_files],
        "meta": meta,
    }
    return type("Theirs", (base,), lists)(root, train=train, download=False)


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_torchvision_reads_the_same(tmp_path: Path, kind: Any, protocol: int) -> None:
    root = make(tmp_path, kind, protocol)
    for train in (True, False):
        ours, reference = kind(root, train=train), theirs(kind, root, train)
        assert len(ours) == len(reference) == 4 * len(FILES[kind][0] if train else FILES[kind][1])
        assert list(ours.classes) == reference.classes
        for position in range(len(ours)):
            image, label = reference[position]
            sample = ours[position]
            assert (sample["targets"], sample["ids"]) == (label, position)
            expected = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
            torch.testing.assert_close(sample["inputs"], expected, rtol=0, atol=0)


def test_augmentation_keeps_size_and_range(tmp_path: Path) -> None:
    dataset = CIFAR100(make(tmp_path, CIFAR100), transform={"type": crop_and_flip})
    image = dataset[0]["inputs"]
    assert image.shape == (3, 32, 32)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    torch.manual_seed(1)
    first = dataset[0]["inputs"]
    torch.manual_seed(1)
    torch.testing.assert_close(dataset[0]["inputs"], first, rtol=0, atol=0)


def test_missing_files_are_listed_with_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks train, meta: expected cifar-100-python/ with train, test, meta under"):
        CIFAR100(tmp_path)
    make(tmp_path, CIFAR10)
    (tmp_path / CIFAR10.folder / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3: .*cifar-10-python.tar.gz of https://www.cs.toronto"):
        CIFAR10(tmp_path)
    assert len(CIFAR10(tmp_path, train=False)) == 4


@pytest.mark.parametrize("kept", [0, 1, 100, 3000])
def test_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = make(tmp_path, CIFAR100) / CIFAR100.folder / "train"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"cifar-100-python/train is damaged .*copy or unpack it again"):
        CIFAR100(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0, 100]}, "between 0 and 99, got 100"),
        ({"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0]}, "must be a list of 2 int, got a list of 1"),
        ({"data": np.zeros((2, 3072), np.uint8)}, "'fine_labels' must be a list of 2 int, got NoneType"),
        ({"data": np.zeros((2, 3072)), "fine_labels": [0, 1]}, r"uint8 of shape \(N, 3072\), got float64 of shape"),
        ({"data": np.zeros((2, 32), np.uint8), "fine_labels": [0, 1]}, r"got uint8 of shape \(2, 32\)"),
        ({"data": "none", "fine_labels": [0, 1]}, "got str"),
        ([1, 2], "must hold a dictionary, got list"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, content: Any, message: str) -> None:
    write(make(tmp_path, CIFAR100) / CIFAR100.folder, "train", content)
    with pytest.raises(DataError, match=message):
        CIFAR100(tmp_path)


def test_wrong_names_are_named(tmp_path: Path) -> None:
    write(make(tmp_path, CIFAR100) / CIFAR100.folder, "meta", {"fine_label_names": ["a"]})
    with pytest.raises(DataError, match=r"meta: 'fine_label_names' must be a list of 100 str, got a list of 1"):
        CIFAR100(tmp_path)


class Attack:
    """A pickle that runs a command when it is loaded the usual way."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def test_malicious_pickle_is_refused_without_running(tmp_path: Path) -> None:
    marker = tmp_path / "owned"
    folder = make(tmp_path, CIFAR100) / CIFAR100.folder
    write(folder, "train", {"data": Attack(marker)})
    with pytest.raises(DataError, match=r"train was refused: it asks for posix.system, .* nothing in it was run"):
        CIFAR100(tmp_path)
    assert not marker.exists()
    pickle.loads((folder / "train").read_bytes())  # the file is as bad as it claims
    assert marker.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"ccopyreg\n_reconstructor\n.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"cnumpy\ndtype\n(S'O'\ntR.",
    ],
)
def test_nothing_but_arrays_is_looked_up(tmp_path: Path, stream: bytes) -> None:
    (tmp_path / "file").write_bytes(stream)
    with pytest.raises(DataError, match="file was refused: it"):
        read_pickle(tmp_path / "file")


def test_huge_array_is_an_error_not_a_crash(tmp_path: Path) -> None:
    size = b"\x8a\x08" + struct.pack("<q", 2**60)
    stream = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + size + b"tU\x01btR."
    (tmp_path / "file").write_bytes(stream)
    with pytest.raises(DataError, match="is damaged"):
        read_pickle(tmp_path / "file")
