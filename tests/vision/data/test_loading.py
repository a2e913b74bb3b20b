"""The data sets in the engine's loader: batches follow from seed, epoch and sample, not from workers or order."""

from __future__ import annotations

from typing import Any

import torch

from limbeck_core.engine.sampler import build_dataloader
from limbeck_vision.data import Digits, LongTailed, mix_collate, small_shifts


def load(workers: int = 0, **options: Any) -> list[dict[str, Any]]:
    dataset = {"type": Digits, "labels_per_class": 4, "transform": {"type": small_shifts, "size": 8}}
    config = {"dataset": dataset, "batch_size": 16, "sampler": {"shuffle": True}, "num_workers": workers, **options}
    return list(build_dataloader(config, seed=3, training=True))


def test_random_shifts_do_not_depend_on_workers_or_on_what_was_drawn_before() -> None:
    first = load()
    torch.rand(7)
    for batch, again in zip(first, load(workers=2), strict=True):
        assert batch.keys() == {"inputs", "targets", "ids"}
        for name, value in batch.items():
            torch.testing.assert_close(again[name], value, rtol=0, atol=0)
    assert not torch.equal(first[0]["inputs"], load(dataset={"type": Digits, "labels_per_class": 4})[0]["inputs"])


def test_mixing_and_a_long_tail_from_a_config() -> None:
    tail = {"type": LongTailed, "dataset": {"type": Digits}, "imbalance": 10}
    collate = {"type": mix_collate, "num_classes": 10, "mixup": 0.8, "cutmix": 1.0}
    first = load(dataset=tail, collate_fn=collate)
    assert first[0]["targets"].shape == (16, 10)
    for batch, again in zip(first, load(dataset=tail, collate_fn=collate), strict=True):
        torch.testing.assert_close(again["inputs"], batch["inputs"], rtol=0, atol=0)
        torch.testing.assert_close(again["targets"], batch["targets"], rtol=0, atol=0)
