"""The digits that scikit-learn ships, cut and spoiled as asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from limbeck_vision.data import Digits, small_shifts


def pixels(dataset: Digits) -> np.ndarray:
    return np.stack([dataset.image(i).numpy() for i in range(len(dataset))])


def test_the_parts_are_the_whole_set() -> None:
    train, test = Digits(), Digits(train=False)
    assert (len(train), len(test)) == (1200, 597)
    ours = np.concatenate([pixels(train), pixels(test)]).reshape(-1, 64)
    whole = load_digits().data / 16
    np.testing.assert_array_equal(np.unique(ours, axis=0), np.unique(whole.astype(np.float32), axis=0))


def test_the_split_is_stratified_and_always_the_same() -> None:
    first, second = Digits(train_size=600), Digits(train_size=600, seed=5)
    np.testing.assert_array_equal(first.targets, second.targets)
    share = np.bincount(load_digits().target) / 1797
    np.testing.assert_allclose(np.array(first.class_counts) / 600, share, atol=0.005)


def test_sample() -> None:
    sample = Digits(size=16, channels=3)[7]
    assert sample["inputs"].shape == (3, 16, 16)
    assert sample["inputs"].dtype == torch.float32
    assert 0 <= float(sample["inputs"].min()) < float(sample["inputs"].max()) <= 1
    torch.testing.assert_close(sample["inputs"][0], sample["inputs"][2])
    assert sample["ids"] == 7
    assert isinstance(sample["targets"], int)
    with pytest.raises(IndexError):
        Digits()[1200]


def test_label_noise_hits_the_share_and_is_always_wrong() -> None:
    clean, noisy = Digits(), Digits(label_noise=0.3, seed=1)
    assert int((clean.targets != noisy.targets).sum()) == 360
    assert set(np.unique((noisy.targets - clean.targets) % 10)) == set(range(10))
    np.testing.assert_array_equal(noisy.targets, Digits(label_noise=0.3, seed=1).targets)
    assert (noisy.targets != Digits(label_noise=0.3, seed=2).targets).any()


def test_fewer_labels_keep_their_ids() -> None:
    whole, few = Digits(), Digits(labels_per_class=4, seed=3)
    assert few.class_counts == (4,) * 10
    np.testing.assert_array_equal(whole.targets[few.ids], few.targets)
    torch.testing.assert_close(few[5]["inputs"], whole[int(few.ids[5])]["inputs"])


def test_shifts_move_by_at_most_one_pixel_and_follow_torchs_seed() -> None:
    still, moving = Digits(), Digits(transform={"type": small_shifts, "size": 8, "pixels": 1})
    image = torch.nn.functional.pad(still[0]["inputs"], (1, 1, 1, 1))
    places = {(y, x): image[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)}
    seen = set()
    for seed in range(60):
        torch.manual_seed(seed)
        moved = moving[0]["inputs"]
        torch.manual_seed(seed)
        torch.testing.assert_close(moving[0]["inputs"], moved, rtol=0, atol=0)
        seen |= {place for place, window in places.items() if torch.equal(window, moved)}
    assert len(seen) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_noise": 1.5}, "label_noise must lie between 0.0 and 1.0, got 1.5"),
        ({"train": False, "label_noise": 0.1}, "for training images"),
        ({"train": False, "labels_per_class": 1}, "for training images"),
        ({"labels_per_class": 500}, r"labels_per_class must lie between 1 and 11\d \(the rarest class\), got 500"),
        ({"train_size": 1797}, "train_size must lie between 10 and 1787"),
        ({"size": 0}, "size and channels must be at least 1, got 0 and 1"),
    ],
)
def test_options_are_checked(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Digits(**options)
