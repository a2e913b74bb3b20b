"""Batches of like length: a permutation, drawn anew each epoch, with less padding, shared out among ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck_core.engine.sampler import EpochSampler, build_dataloader
from limbeck_core.errors import ConfigError
from limbeck_nlp.data import GrammarIntents, pad_batch
from limbeck_nlp.data.buckets import LengthSampler


class Rows:
    def __init__(self, size: int = 203) -> None:
        generator = torch.Generator().manual_seed(0)
        self.lengths = torch.randint(4, 100, (size,), generator=generator).tolist()

    def __len__(self) -> int:
        return len(self.lengths)


def padding(order: list[int], lengths: list[int], size: int = 8) -> int:
    batches = [[lengths[i] for i in order[start : start + size]] for start in range(0, len(order), size)]
    return sum(max(batch) * len(batch) - sum(batch) for batch in batches)


def test_each_epoch_is_another_permutation_with_little_padding() -> None:
    data = Rows()
    sampler = LengthSampler(data, batch_size=8, pool=10, rank=0, world_size=1)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert sorted(orders[0]) == list(range(203))
    assert orders[0] == orders[2] != orders[1]
    plain = list(EpochSampler(data, rank=0, world_size=1))
    assert padding(orders[0], data.lengths) < 0.25 * padding(plain, data.lengths)
    batches = [set(orders[e][i : i + 8]) for e in (0, 1) for i in range(0, 200, 8)]
    assert not any(batches[i] == batches[25 + i] for i in range(25))
    heights = [data.lengths[i] for i in orders[0][::8]]
    assert heights != sorted(heights)  # the lengths do not rise over the epoch


def test_ranks_share_batches_of_like_length() -> None:
    data = Rows()
    shares = [list(LengthSampler(data, batch_size=4, pool=10, rank=rank, world_size=2)) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == list(range(203))
    assert all(padding(share, data.lengths, 4) < 0.6 * padding(sorted(share), data.lengths, 4) for share in shares)


def test_without_shuffling_all_are_sorted() -> None:
    data = Rows()
    order = list(LengthSampler(data, batch_size=8, shuffle=False, rank=0, world_size=1))
    assert [data.lengths[i] for i in order] == sorted(data.lengths)


def test_in_the_engines_loader() -> None:
    data = GrammarIntents(size=40)
    generator = torch.random.get_rng_state()
    sampler: dict[str, Any] = dict(type=LengthSampler, batch_size=8, pool=5)
    loader = build_dataloader(
        dict(dataset=data, batch_size=8, sampler=sampler, collate_fn=pad_batch), seed=1, training=True
    )
    assert torch.equal(generator, torch.random.get_rng_state())
    batches = list(loader)
    assert sorted(int(i) for batch in batches for i in batch["ids"]) == list(range(40))
    widths = {batch["inputs"]["input_ids"].shape[1] for batch in batches}
    assert len(widths) > 2


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ConfigError, match="does not tell the lengths"):
        LengthSampler([1, 2], batch_size=1, rank=0, world_size=1)
    with pytest.raises(ConfigError, match="must be 1 or more"):
        LengthSampler(Rows(), batch_size=0, rank=0, world_size=1)
