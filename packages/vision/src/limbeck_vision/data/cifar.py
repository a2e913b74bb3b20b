"""CIFAR-10 and CIFAR-100 from their Python files, read without running what a pickle may hold."""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from limbeck_core.errors import DataError
from limbeck_vision.data.dataset import ImageArray, Labels, Transform


class _CIFAR(ImageArray):
    """What CIFAR-10 and CIFAR-100 share."""

    folder: ClassVar[str]
    archive: ClassVar[str]
    train_files: ClassVar[tuple[str, ...]]
    test_files: ClassVar[tuple[str, ...]]
    names_file: ClassVar[str]
    names_key: ClassVar[str]
    labels_key: ClassVar[str]
    number_of_classes: ClassVar[int]

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        *,
        transform: Transform | Mapping[str, Any] | None = None,
    ) -> None:
        self.root = Path(root)
        files = self.train_files if train else self.test_files
        missing = [name for name in (*files, self.names_file) if not (self.root / self.folder / name).is_file()]
        if missing:
            raise DataError(
                f"{self.root / self.folder} lacks {', '.join(missing)}: expected {self.folder}/ with "
                f"{', '.join((*self.train_files, *self.test_files, self.names_file))} under root, as unpacked from "
                f"{self.archive} of https://www.cs.toronto.edu/~kriz/cifar.html. Nothing is downloaded here"
            )
        images, labels = zip(*(self._read(self.root / self.folder / name) for name in files), strict=True)
        super().__init__(np.concatenate(images), np.concatenate(labels), self._names(), transform=transform)

    def _read(self, path: Path) -> tuple[npt.NDArray[np.uint8], Labels]:
        content = read_pickle(path)
        data = content.get("data")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
            got = f"{data.dtype} of shape {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
            raise DataError(f"{path}: 'data' must be uint8 of shape (N, 3072), got {got}: unpack {self.archive} again")
        labels = self._list(path, content, self.labels_key, int, len(data))
        outside = [label for label in labels if not 0 <= label < self.number_of_classes]
        if outside:
            raise DataError(
                f"{path}: labels must lie between 0 and {self.number_of_classes - 1}, got {outside[0]}: unpack "
                f"{self.archive} again"
            )
        return data.reshape(-1, 3, 32, 32), np.asarray(labels, dtype=np.int64)

    def _names(self) -> list[str]:
        path = self.root / self.folder / self.names_file
        return self._list(path, read_pickle(path), self.names_key, str, self.number_of_classes)

    def _list(self, path: Path, content: dict[str, Any], key: str, kind: type, length: int) -> list[Any]:
        value = content.get(key)
        if isinstance(value, list) and len(value) == length and all(isinstance(item, kind) for item in value):
            return value
        got = f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__
        raise DataError(
            f"{path}: {key!r} must be a list of {length} {kind.__name__}, got {got}: unpack {self.archive} again"
        )


class CIFAR10(_CIFAR):
    """CIFAR-10: 50000 training and 10000 test images of 32x32 in ten classes, in torchvision's layout.

    Args:
        root: Folder that holds ``cifar-10-batches-py``.
        train: The training images, or the test images.
        transform: See :class:`~limbeck_vision.data.dataset.ImageDataset`.

    Raises:
        DataError: if files are missing (with the expected layout and where to get them), damaged, or hold anything but
            arrays and plain data. Nothing in them is run.

    Reference:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    folder = "cifar-10-batches-py"
    archive = "cifar-10-python.tar.gz"
    train_files = tuple(f"data_batch_{number}" for number in range(1, 6))
    test_files = ("test_batch",)
    names_file = "batches.meta"
    names_key = "label_names"
    labels_key = "labels"
    number_of_classes = 10


class CIFAR100(_CIFAR):
    """CIFAR-100: 50000 training and 10000 test images of 32x32 in a hundred classes, in torchvision's layout.

    Args:
        root: Folder that holds ``cifar-100-python``.
        train: The training images, or the test images.
        transform: See :class:`~limbeck_vision.data.dataset.ImageDataset`.

    Raises:
        DataError: see :class:`CIFAR10`.

    Reference:
        Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    folder = "cifar-100-python"
    archive = "cifar-100-python.tar.gz"
    train_files = ("train",)
    test_files = ("test",)
    names_file = "meta"
    names_key = "fine_label_names"
    labels_key = "fine_labels"
    number_of_classes = 100


def read_pickle(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of arrays and plain data.

    Only what NumPy needs to rebuild an array is looked up; a file that asks for anything else is refused before that
    is called.

    Raises:
        DataError: if the file is damaged, asks for anything else, or holds no dictionary.
    """
    try:
        with path.open("rb") as file:
            # Python 2 wrote the published files: its strings are bytes, which NumPy expects as latin-1
            content = _ArrayUnpickler(file, encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{path} was refused: {error}") from None
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}): copy or unpack it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a dictionary, got {type(content).__name__}: copy or unpack it again")
    return content


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 writes bytes; other codecs have no business here."""
    if codecs.lookup(encoding).name != "iso8859-1":
        raise DataError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


def _number_dtype(code: str, *options: Any) -> np.dtype[Any]:
    dtype = np.dtype(code, *options)
    if dtype.kind not in "iuf":
        raise DataError(f"it holds an array of {dtype}, and only arrays of numbers are read")
    return dtype


def _numpy_functions() -> dict[tuple[str, str], Any]:
    # NumPy pickles arrays through private functions; an array says which, whatever this version calls them
    reconstruct, from_buffer = np.zeros(1).__reduce__()[0], np.zeros(1).__reduce_ex__(5)[0]
    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _number_dtype,
        ("_codecs", "encode"): _encode_latin1,
    }
    for core in ("numpy.core", "numpy._core"):
        allowed[f"{core}.multiarray", "_reconstruct"] = reconstruct
        allowed[f"{core}.numeric", "_frombuffer"] = from_buffer
    return allowed


class _ArrayUnpickler(pickle.Unpickler):
    """Knows NumPy's arrays and nothing else."""

    allowed = _numpy_functions()

    def find_class(self, module: str, name: str) -> Any:
        """Return what is allowed, and refuse everything else."""
        found = self.allowed.get((module, name))
        if found is None:
            raise DataError(
                f"it asks for {module}.{name}, and only arrays and plain data are read, so nothing in it was run. Get "
                "the data from its original source"
            )
        return found
