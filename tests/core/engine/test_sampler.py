"""The data stream: the same samples whatever the number of workers or ranks, from any position."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, WeightedRandomSampler

from engine_toys import Augmented
from limbeck_core.engine.sampler import (
    EpochSampler,
    EvenBatches,
    Key,
    SeededDataset,
    build_dataloader,
    fetch,
    sample_seed,
    stack,
)
from limbeck_core.engine.state import capture_generators
from limbeck_core.errors import ConfigError, ShapeError


def state() -> str:
    from limbeck_core.engine.checkpoints import digest_of

    return digest_of(capture_generators())


def epoch_of(loader: DataLoader[Any], epoch: int, start: int = 0) -> list[dict[str, Any]]:
    loader.batch_sampler.seek(epoch, start)
    iterator = iter(loader)
    return [fetch(iterator) for _ in range(len(loader) - start)]


def loader(**options: Any) -> DataLoader[Any]:
    config = {"dataset": {"type": Augmented}, "batch_size": 4} | options
    return build_dataloader(config, seed=5, training=True)


def same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a[name], b[name])
        for a, b in zip(first, second, strict=True)
        for name in ("inputs", "targets", "ids")
    )


def test_a_seed_is_a_number_that_never_changes() -> None:
    assert sample_seed(3, 1, 7) == 6622280449466577310
    assert len({sample_seed(s, e, i) for s in range(3) for e in range(3) for i in range(3)}) == 27


def test_batch_contract() -> None:
    batch = epoch_of(loader(), 0)[0]
    assert sorted(batch) == ["ids", "inputs", "targets"]
    assert batch["inputs"].shape == (4, 6)
    assert torch.equal(batch["targets"], Augmented().targets[batch["ids"]])


def test_workers_change_nothing() -> None:
    plain, parallel = loader(), loader(num_workers=2)
    assert parallel.persistent_workers
    for epoch in (0, 1, 5):  # the workers live on: they learn of the epoch from the keys
        assert same(epoch_of(plain, epoch), epoch_of(parallel, epoch))
    assert same(epoch_of(plain, 3, 2), epoch_of(parallel, 3, 2))


def test_epochs_differ_in_order_and_in_augmentation() -> None:
    first, second = epoch_of(loader(), 0), epoch_of(loader(), 1)
    assert [b["ids"].tolist() for b in first] != [b["ids"].tolist() for b in second]
    dataset = loader().dataset
    assert not torch.equal(dataset[Key(3, 0)]["inputs"], dataset[Key(3, 1)]["inputs"])


def test_any_position() -> None:
    stream = loader()
    whole = epoch_of(stream, 2)
    for start in range(len(whole)):
        assert same(whole[start:], epoch_of(stream, 2, start))


def test_unseeded_samples_would_depend_on_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the tests above: without the seeds they would fail."""
    monkeypatch.setattr("limbeck_core.engine.sampler.seed_generators", lambda seed: None)
    assert not same(epoch_of(loader(), 0), epoch_of(loader(num_workers=2), 0))


def test_generators_are_left_alone() -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = state()
    epoch_of(loader(), 0)
    loader().dataset[4]
    epoch_of(loader(num_workers=1), 0)
    assert state() == before


def test_samples_are_made_by_one_thread() -> None:
    """As in a worker: long sums differ by their last bits between one thread and several."""

    class Threads(Augmented):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"inputs": torch.get_num_threads()}

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert epoch_of(loader(dataset=Threads()), 0)[0]["inputs"].tolist() == [1, 1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_the_wrapped_data_set_shows_through() -> None:
    dataset = SeededDataset(Augmented(), seed=1)
    dataset.pipeline = ["flip"]
    assert dataset.dataset.pipeline == dataset.pipeline == ["flip"]
    assert dataset.targets is dataset.dataset.targets
    dataset.seed = 2
    assert not hasattr(dataset.dataset, "seed")
    with pytest.raises(AttributeError):
        dataset.absent
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3]["inputs"], dataset[3]["inputs"])


def test_views_repeat() -> None:
    dataset = SeededDataset(Augmented(), seed=1, views=2)
    views = [dataset[Key(3, epoch)]["inputs"] for epoch in range(4)]
    assert torch.equal(views[0], views[2])
    assert torch.equal(views[1], views[3])
    assert not torch.equal(views[0], views[1])
    with pytest.raises(ConfigError, match="views must be a whole number >= 1 or None, got 0"):
        SeededDataset(Augmented(), views=0)


def test_own_generators_are_reseeded() -> None:
    class Own(Augmented):
        def reseed(self, seed: int) -> None:
            self.random = np.random.RandomState(seed % 2**32)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"inputs": torch.tensor(self.random.rand()), "targets": 0}

    plain, parallel = (loader(dataset=Own(), num_workers=n) for n in (0, 2))
    assert [b["inputs"].tolist() for b in epoch_of(plain, 1)] == [b["inputs"].tolist() for b in epoch_of(parallel, 1)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_is_told_the_epoch_of_each_sample(workers: int) -> None:
    class Told(Augmented):
        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"inputs": torch.tensor(self.epoch), "targets": 0}

    told = loader(dataset=Told(), num_workers=workers)
    assert [{int(x) for b in epoch_of(told, epoch) for x in b["inputs"]} for epoch in (0, 3, 1)] == [{0}, {3}, {1}]
    viewed = loader(dataset=Told(), num_workers=workers, views=2)
    assert {int(x) for b in epoch_of(viewed, 3) for x in b["inputs"]} == {1}


def test_random_collate_does_not_depend_on_workers() -> None:
    first, second = (loader(collate_fn=mixing, num_workers=n) for n in (0, 2))
    assert same(epoch_of(first, 1), epoch_of(second, 1))


def mixing(samples: list[dict[str, Any]]) -> dict[str, Any]:
    batch = stack(samples)
    share = np.random.beta(1, 1)
    return {**batch, "inputs": share * batch["inputs"] + (1 - share) * batch["inputs"].flip(0)}


# ---------------------------------------------------------------------- ranks


def shares(total: int, world: int, size: int, **options: Any) -> list[list[list[int]]]:
    samplers = [EpochSampler(range(total), seed=1, rank=rank, world_size=world) for rank in range(world)]
    return [list(EvenBatches(sampler, size, **options)) for sampler in samplers]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("total", [6, 7, 9, 12, 13, 25])
def test_ranks_take_equal_steps_and_share_out_every_sample_once(total: int, size: int, world: int) -> None:
    ranks = shares(total, world, size)
    assert len({len(batches) for batches in ranks}) == 1
    assert sorted(i for batches in ranks for batch in batches for i in batch) == list(range(total))
    assert all(1 <= len(batch) <= size for batches in ranks for batch in batches)


def test_ranks_together_are_one_process_with_the_whole_batch() -> None:
    (alone,) = shares(22, 1, 8)
    ranks = shares(22, 2, 4)
    for step, batch in enumerate(alone):
        assert sorted(batch) == sorted(ranks[0][step] + ranks[1][step])


def test_single_samples_and_drop_last_leave_the_tail() -> None:
    assert [len(batches) for batches in shares(7, 2, 1)] == [3, 3]
    assert [[len(b) for b in batches] for batches in shares(22, 2, 4, drop_last=True)] == [[4, 4], [4, 4]]


def test_padding_is_asked_for() -> None:
    padded = [EpochSampler(range(7), pad=True, rank=rank, world_size=2) for rank in range(2)]
    assert [len(list(sampler)) for sampler in padded] == [4, 4] == [len(sampler) for sampler in padded]
    plain = [EpochSampler(range(7), rank=rank, world_size=2) for rank in range(2)]
    assert [len(list(sampler)) for sampler in plain] == [4, 3] == [len(sampler) for sampler in plain]


def test_too_few_samples() -> None:
    with pytest.raises(ConfigError, match=r"1 samples do not fill one batch of 4 on 2 ranks"):
        shares(1, 2, 4)
    with pytest.raises(ConfigError, match="with drop_last"):
        shares(3, 1, 4, drop_last=True)
    with pytest.raises(ConfigError, match="the data set list is empty"):
        EpochSampler([])


# ---------------------------------------------------------------------- other samplers


@pytest.mark.parametrize(
    ("given", "shuffle", "pad"),
    [
        (None, True, False),
        ({"shuffle": False}, False, False),
        ({"type": "DefaultSampler", "shuffle": False}, False, True),
        ({"type": DefaultSampler, "shuffle": True, "round_up": False}, True, False),
        (RandomSampler(range(22)), True, False),
    ],
)
def test_usual_samplers_become_ours(given: Any, shuffle: bool, pad: bool) -> None:
    sampler = loader(sampler=given).batch_sampler.sampler
    assert isinstance(sampler, EpochSampler)
    assert (sampler.shuffle, sampler.pad) == (shuffle, pad)


def test_a_foreign_sampler_resumes_too() -> None:
    def weighted() -> DataLoader[Any]:
        own = torch.Generator()
        return loader(sampler=WeightedRandomSampler([1.0] * 11 + [3.0] * 11, 22, generator=own))

    whole = epoch_of(weighted(), 4)
    assert same(whole[2:], epoch_of(weighted(), 4, 2))
    assert not same(whole, epoch_of(weighted(), 5))


def test_a_foreign_batch_sampler_resumes_too() -> None:
    def grouped() -> DataLoader[Any]:
        return loader(batch_sampler={"type": BatchSampler, "drop_last": False})

    assert same(epoch_of(grouped(), 1)[3:], epoch_of(grouped(), 1, 3))


def test_a_pytorch_loader_is_taken_over() -> None:
    given = DataLoader(Augmented(), batch_size=4, shuffle=True, drop_last=True)
    ours = build_dataloader(given, seed=5, training=True)
    assert len(ours) == 5
    assert same(epoch_of(ours, 1), epoch_of(loader(drop_last=True), 1))
    assert build_dataloader(ours, seed=9, training=True) is ours


def test_endless_samplers_are_refused() -> None:
    with pytest.raises(ConfigError, match="InfiniteSampler has no end"):
        loader(sampler={"type": InfiniteSampler})

    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(ConfigError, match="Stream has no __getitem__ and __len__"):
        loader(dataset=Stream())


def test_a_batch_sampler_must_know_its_length() -> None:
    class Wrong(BatchSampler):
        def __len__(self) -> int:
            return 99

    stream = loader(batch_sampler={"type": Wrong, "drop_last": False})
    with pytest.raises(ConfigError, match=r"promised 99 batches \(its len\) and gave 6 in epoch 0"):
        next(iter(stream.batch_sampler))


def test_evaluation_goes_in_order_and_repeats_nothing() -> None:
    stream = build_dataloader({"dataset": Augmented(9), "batch_size": 4}, seed=5, training=False)
    assert [i for batch in epoch_of(stream, 0) for i in batch["ids"].tolist()] == list(range(9))


# ---------------------------------------------------------------------- messages


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"has no option 'num_worker': did you mean 'num_workers'"):
        loader(num_worker=2)
    with pytest.raises(ConfigError, match="batch_size must be a whole number >= 1, got 0"):
        loader(batch_size=0)
    with pytest.raises(ConfigError, match="needs batch_size"):
        build_dataloader({"dataset": Augmented()}, seed=1, training=True)
    with pytest.raises(ConfigError, match="needs a dataset"):
        build_dataloader({"batch_size": 1}, seed=1, training=True)


def test_stacking() -> None:
    pairs = stack([(torch.zeros(2), 1), (torch.ones(2), 0)])
    assert pairs["inputs"].tolist() == [[0, 0], [1, 1]]
    assert pairs["targets"].tolist() == [1, 0]
    other = object()
    assert stack([{"x": other}, {"x": other}])["x"] == [other, other]
    assert stack([torch.zeros(3)])["inputs"].shape == (1, 3)
    with pytest.raises(ShapeError, match=r"'inputs' cannot be stacked into a batch, its shapes are \(2,\), \(3,\)"):
        stack([torch.zeros(2), torch.zeros(3)])
    with pytest.raises(ShapeError, match="mask stands in only one of sample 0 and sample 1"):
        stack([{"inputs": 1}, {"inputs": 1, "mask": 2}])


class TestViews:
    """Views of a bank: a seed that runs share, by the id of a sample, and their number in the batch."""

    def test_several_runs_share_the_views(self) -> None:
        config = {"dataset": {"type": Augmented}, "batch_size": 4, "views": 2, "view_seed": 9}
        first, second = (build_dataloader(config, seed=seed, training=True) for seed in (5, 6))
        assert torch.equal(first.dataset[Key(3, 1)]["inputs"], second.dataset[Key(3, 3)]["inputs"])
        assert [b["ids"].tolist() for b in epoch_of(first, 0)] != [b["ids"].tolist() for b in epoch_of(second, 0)]
        other = build_dataloader({**config, "view_seed": 10}, seed=5, training=True)
        assert not torch.equal(first.dataset[Key(3, 1)]["inputs"], other.dataset[Key(3, 1)]["inputs"])

    def test_the_batch_says_which_view_it_shows(self) -> None:
        stream = loader(views=2)
        assert [epoch_of(stream, epoch)[0]["view_ids"].tolist() for epoch in (0, 3)] == [[0] * 4, [1] * 4]
        assert "view_ids" not in epoch_of(loader(), 0)[0]

    def test_a_subset_shows_the_views_of_the_whole(self) -> None:
        whole = Augmented()
        whole.ids = np.arange(len(whole)) + 100

        class Part(Augmented):
            ids = np.array([107, 103])

            def __len__(self) -> int:
                return 2

            def __getitem__(self, index: int) -> Any:
                return whole[self.ids[index] - 100]

        everyone, some = (SeededDataset(d, seed=1, views=1, view_seed=4) for d in (whole, Part()))
        assert torch.equal(everyone[Key(3, 0)]["inputs"], some[Key(1, 0)]["inputs"])

    @pytest.mark.parametrize("ids", [["a", "b"], np.zeros(3), np.zeros(22), torch.zeros(22, 2, dtype=torch.int64), 5])
    def test_an_attribute_that_names_no_samples_does_not_count(self, ids: Any) -> None:
        other = Augmented()
        other.ids = ids
        plain, odd = (SeededDataset(d, seed=1, views=1) for d in (Augmented(), other))
        assert torch.equal(plain[Key(3, 0)]["inputs"], odd[Key(3, 0)]["inputs"])

    def test_a_seed_without_views(self) -> None:
        with pytest.raises(ConfigError, match="view_seed=3 has no effect without views: say how many views a sample"):
            SeededDataset(Augmented(), view_seed=3)
