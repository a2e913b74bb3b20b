"""Mixup and CutMix: labels carry the shares that the images show."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader

from limbeck_core.errors import DataError, ShapeError, TargetError
from limbeck_vision.data import Digits, mix_batch, mix_collate


def batch(count: int = 6) -> dict[str, torch.Tensor]:
    """Image i holds the number i everywhere, so that a mixed image shows its shares."""
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone()
    return {"inputs": images, "targets": torch.arange(count) % 4, "ids": torch.arange(count) + 100}


@pytest.mark.parametrize("options", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_shares_of_image_label_and_weight_agree(options: dict[str, float]) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        whole = batch()
        mixed = mix_batch(whole, num_classes=4, **options)
        own = mixed["mix_weight"]
        other = whole["inputs"].roll(1, 0)[:, 0, 0, 0]
        expected = own * torch.arange(6) + (1 - own) * other
        torch.testing.assert_close(mixed["inputs"].mean((1, 2, 3)), expected)
        one_hot = torch.eye(4)[whole["targets"]]
        torch.testing.assert_close(mixed["targets"], own[:, None] * one_hot + (1 - own[:, None]) * one_hot.roll(1, 0))
        assert mixed["mix_ids"].tolist() == [105, 100, 101, 102, 103, 104]
        assert type(mixed["inputs"]) is torch.Tensor
        torch.testing.assert_close(whole["inputs"], batch()["inputs"], rtol=0, atol=0)


def test_views_are_mixed_alike_and_other_fields_left() -> None:
    whole = {
        **batch(),
        "large": torch.arange(6).float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8).clone() * 10,
        "name": "x",
    }
    mixed = mix_batch(whole, num_classes=4, cutmix=1.0, views=("inputs", "large"))
    torch.testing.assert_close(mixed["large"], mixed["inputs"] * 10)
    assert mixed["name"] == "x"


def test_both_are_used_in_turn() -> None:
    kinds = set()
    for seed in range(12):
        torch.manual_seed(seed)
        kinds.add(mix_batch(batch(), num_classes=4, mixup=1.0, cutmix=1.0)["inputs"][1].unique().numel() == 1)
    assert kinds == {True, False}  # mixup leaves a constant image constant, CutMix does not


def test_soft_labels_and_a_single_image() -> None:
    whole = batch()
    soft = {**whole, "targets": torch.eye(4)[whole["targets"]]}
    torch.manual_seed(0)
    first = mix_batch(soft, num_classes=4, mixup=0.5)
    torch.manual_seed(0)
    torch.testing.assert_close(mix_batch(whole, num_classes=4, mixup=0.5)["targets"], first["targets"])
    alone = mix_batch(batch(1), num_classes=4, mixup=0.5)
    torch.testing.assert_close(alone["targets"], torch.eye(4)[:1])


def test_as_collate_function() -> None:
    loader = DataLoader(Digits(), batch_size=5, collate_fn=partial(mix_collate, num_classes=10, mixup=0.8))
    mixed = next(iter(loader))
    assert mixed["inputs"].shape == (5, 1, 8, 8)
    torch.testing.assert_close(mixed["targets"].sum(1), torch.ones(5))


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {}, ValueError, "mixup and cutmix are both 0"),
        ({}, {"mixup": -1.0}, ValueError, "mixup must be a finite number >= 0, got -1.0"),
        ({}, {"mixup": 1.0, "views": ("large",)}, DataError, "no 'large': it has inputs, targets, ids"),
        ({"inputs": torch.rand(6, 3)}, {"mixup": 1.0}, ShapeError, r"shape \(6, C, H, W\) to be mixed, got \(6, 3\)"),
        ({"targets": torch.full((6,), 4)}, {"mixup": 1.0}, TargetError, "between 0 and 3, got 4"),
        ({"targets": torch.rand(6, 5)}, {"mixup": 1.0}, ShapeError, r"shape \(N, 4\), got \(6, 5\)"),
    ],
)
def test_input_is_checked(change: dict, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mix_batch({**batch(), **change}, num_classes=4, **options)
