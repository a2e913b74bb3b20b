"""Chosen samples and long tails: sizes by the formula, ids of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from limbeck_core.engine import held_out_part
from limbeck_core.errors import DataError
from limbeck_vision.data import Digits, ImageArray, LongTailed, Subset, Unlabelled


def balanced(per_class: int, classes: int) -> ImageArray:
    targets = np.tile(np.arange(classes), per_class)
    images = np.arange(len(targets), dtype=np.uint8)[:, None, None, None].repeat(3, 1)
    return ImageArray(images, targets, [f"c{i}" for i in range(classes)])


def test_subset_keeps_ids_and_order() -> None:
    whole = balanced(5, 3)
    part = Subset(Subset(whole, [12, 3, 7, 0]), [2, 0])
    assert [part[i]["ids"] for i in range(2)] == [7, 12]
    assert [part[i]["targets"] for i in range(2)] == [7 % 3, 12 % 3]
    torch.testing.assert_close(part[0]["inputs"], whole[7]["inputs"])
    assert part.class_counts == (1, 1, 0)


def test_subset_applies_the_transform_once() -> None:
    whole = balanced(2, 2)
    whole.transform = lambda image: image + 1
    torch.testing.assert_close(Subset(whole, [3])[0]["inputs"], whole.image(3) + 1)


@pytest.mark.parametrize(
    ("indices", "message"), [([6], "between 0 and 5, got 6"), ([-1], "got -1"), ([1, 1], "at most")]
)
def test_subset_positions_are_checked(indices: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Subset(balanced(3, 2), indices)


def test_long_tail_by_hand() -> None:
    """500 * 100^(-c/9): the counts of CIFAR-10-LT at one tenth of its size, floored."""
    dataset = LongTailed(balanced(500, 10), imbalance=100)
    assert dataset.class_counts == (500, 299, 179, 107, 64, 38, 23, 13, 8, 5)
    assert dataset.absent == ()
    assert len(dataset) == sum(dataset.class_counts)


def test_long_tail_is_seeded_and_keeps_ids() -> None:
    whole = balanced(50, 5)
    first, again, other = (LongTailed(whole, imbalance=10, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.ids, again.ids)
    assert (first.ids != other.ids).any()
    np.testing.assert_array_equal(whole.targets[first.ids], first.targets)
    assert LongTailed(whole, imbalance=1).class_counts == (50,) * 5


def test_absent_classes_are_reported() -> None:
    with pytest.warns(UserWarning, match=r"2 of 5 classes have no sample left at imbalance 100: c3, c4\."):
        dataset = LongTailed(balanced(10, 5), imbalance=100)
    assert dataset.absent == ("c3", "c4")
    assert dataset.class_counts == (10, 3, 1, 0, 0)


def test_long_tail_of_a_config() -> None:
    dataset = LongTailed({"type": Digits, "train_size": 1000}, imbalance=10)
    assert dataset.class_counts[-1] == max(Digits(train_size=1000).class_counts) // 10


def test_long_tail_is_checked(tmp_path) -> None:
    with pytest.raises(ValueError, match="imbalance must be at least 1"):
        LongTailed(balanced(3, 2), imbalance=0.5)
    from PIL import Image

    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="Unlabelled has no labels of at least two classes"):
        LongTailed(Unlabelled(tmp_path))


def test_batches_are_mappings() -> None:
    batch = next(iter(DataLoader(balanced(4, 3), batch_size=6)))
    assert batch["inputs"].shape == (6, 3, 1, 1)
    assert batch["targets"].tolist() == [0, 1, 2, 0, 1, 2]
    assert batch["ids"].tolist() == list(range(6))


def test_held_out_and_rest_are_the_whole() -> None:
    whole = balanced(10, 3)
    rest, held_out = (held_out_part(whole, count=0.3, held_out=part, seed=4) for part in (False, True))
    assert (len(rest), len(held_out)) == (21, 9)
    assert sorted([*rest.ids, *held_out.ids]) == list(range(30))
    assert held_out[0]["ids"] == held_out.ids[0]
    assert (held_out_part(whole, count=9, held_out=True, seed=5).ids != held_out.ids).any()


def test_noise_in_the_labels_moves_no_image_to_the_other_part() -> None:
    parts = [held_out_part({"type": Digits, "label_noise": noise}, count=300, held_out=True) for noise in (0.0, 0.4)]
    np.testing.assert_array_equal(parts[0].ids, parts[1].ids)
    assert (parts[0].targets != parts[1].targets).any()


@pytest.mark.parametrize("count", [0, 30, 31, 0.01, -1])
def test_held_out_leaves_samples_on_both_sides(count: float) -> None:
    with pytest.raises(ValueError, match=f"samples in both parts of 30, got {count}"):
        held_out_part(balanced(10, 3), count=count, held_out=True)


def test_held_out_images_have_their_share_of_wrong_labels() -> None:
    """One seed for the noise and the cut must not hold out the wrong labels alone."""
    noisy, clean = Digits(label_noise=0.4), Digits()
    parts = [held_out_part(noisy, count=300, held_out=held_out) for held_out in (False, True)]
    wrong = [float((part.targets != clean.targets[part.ids]).mean()) for part in parts]
    assert wrong == pytest.approx([0.4, 0.4], abs=0.06)
