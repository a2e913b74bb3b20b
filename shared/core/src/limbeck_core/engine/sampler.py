"""Which sample comes when, and with which random numbers: a stream that starts anywhere and does not depend on workers.

A batch is asked for by keys ``(sample, epoch)``. Everything random about a sample follows from the run's seed and its
key, so a sample is the same in any process, at any time, after any number of others. The position in the epoch is kept
by the loop; the batches before it are skipped without being loaded.
"""

from __future__ import annotations

import hashlib
import math
import signal
import struct
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS, DATASETS, FUNCTIONS
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    default_collate,
    get_worker_info,
)

from limbeck_core.engine.reseed import Reseeder
from limbeck_core.engine.state import isolated, seed_generators
from limbeck_core.errors import ConfigError, ShapeError, closest

# What a seed is for, so that unlike things never share one.
SAMPLE, ORDER, COLLATE, TRAIN, VALIDATE = range(5)
_LOADER_OPTIONS = (
    "num_workers",
    "persistent_workers",
    "pin_memory",
    "prefetch_factor",
    "timeout",
    "multiprocessing_context",
)
_OPTIONS = (
    "dataset",
    "batch_size",
    "sampler",
    "batch_sampler",
    "collate_fn",
    "drop_last",
    "worker_init_fn",
    "views",
    "view_seed",
    *_LOADER_OPTIONS,
)


class Key(NamedTuple):
    """What a batch asks the data set for: the sample, and the pass over the data that it belongs to."""

    sample: int
    epoch: int


def sample_seed(seed: int, epoch: int, index: int, purpose: int = SAMPLE) -> int:
    """Return the seed of one sample: the same on every machine, in every process and version of Python.

    Args:
        seed: The run's seed.
        epoch: The pass over the data, or the view of the sample.
        index: Index of the sample in the data set.
        purpose: Keeps unlike uses of the same numbers apart.

    Returns:
        An integer in ``[0, 2**63)``.
    """
    words = struct.pack("<4Q", seed % 2**64, epoch % 2**64, index % 2**64, purpose)
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little") >> 1


# ---------------------------------------------------------------------- order


class EpochSampler(Sampler[int]):
    """Indices of this process in one pass over the data: a strided share of one order that all processes agree on.

    Args:
        dataset: The data set; only its length is asked.
        shuffle: Draw a new order each epoch, from the seed and the epoch alone.
        seed: The run's seed, the same on every rank.
        pad: Repeat samples so that every rank gets the same number. The default repeats none: shares differ by at most
            one sample.
        rank: Rank of this process; asked of the process group by default.
        world_size: Number of processes; asked of the process group by default.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        shuffle: bool = True,
        seed: int = 0,
        pad: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        found_rank, found_world = get_dist_info()
        self.total = len(dataset)
        self.shuffle = shuffle
        self.seed = seed
        self.pad = pad
        self.rank = found_rank if rank is None else rank
        self.world_size = found_world if world_size is None else world_size
        self.epoch = 0
        if not self.total:
            raise ConfigError(f"the data set {type(dataset).__name__} is empty: check its path and its filters")

    def set_epoch(self, epoch: int) -> None:
        """Say which pass the next iteration belongs to."""
        self.epoch = epoch

    def order(self) -> list[int]:
        """Return the whole order of the epoch, before it is shared out."""
        if not self.shuffle:
            return list(range(self.total))
        generator = torch.Generator().manual_seed(sample_seed(self.seed, self.epoch, 0, ORDER))
        return torch.randperm(self.total, generator=generator).tolist()

    def __iter__(self) -> Iterator[int]:
        order = self.order()
        if self.pad:
            wanted = len(self) * self.world_size
            order = (order * math.ceil(wanted / len(order)))[:wanted]
        return iter(order[self.rank :: self.world_size])

    def __len__(self) -> int:
        if self.pad:
            return math.ceil(self.total / self.world_size)
        return len(range(self.rank, self.total, self.world_size))


class EvenBatches(Sampler[list[int]]):
    """Batches of an :class:`EpochSampler`, the same number on every rank, so that no rank waits for a gradient.

    Where a share is one sample short of a further batch, its last full batch gives one sample up. With ``batch_size=1``
    there is none to give, and the last ``len(dataset) % world_size`` samples of the order rest for this epoch. In one
    process these are plain batches.

    Args:
        sampler: This rank's share.
        batch_size: Samples a batch and rank.
        drop_last: Leave out the last, smaller batch.

    Raises:
        ConfigError: if there are fewer samples than ranks, or than one batch with ``drop_last``.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, *, drop_last: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = _checked_batch_size(batch_size)
        self.drop_last = drop_last
        if not len(self) or (sampler.total < sampler.world_size and not sampler.pad):
            ranks = f" on {sampler.world_size} ranks" if sampler.world_size > 1 else ""
            raise ConfigError(
                f"{sampler.total} samples do not fill one batch of {batch_size}{ranks}"
                + (" with drop_last" if drop_last else "")
                + ": use a smaller batch_size, fewer ranks, or drop_last=False"
            )

    def __len__(self) -> int:
        shares = self.sampler.total / self.sampler.world_size
        if self.sampler.pad:
            shares = math.ceil(shares)
        if self.drop_last or (self.batch_size == 1 and not self.sampler.pad):
            return math.floor(shares) // self.batch_size
        return math.ceil(math.ceil(shares) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        share, count, size = list(self.sampler), len(self), self.batch_size
        if len(share) == (count - 1) * size:
            yield from (share[i : i + size] for i in range(0, (count - 2) * size, size))
            yield share[(count - 2) * size : -1]
            yield share[-1:]
            return
        yield from (share[i * size : (i + 1) * size] for i in range(count))


class KeyedBatches(Sampler[list[Key]]):
    """Any batch sampler, as keys, from any position of any epoch.

    Args:
        batches: A batch sampler over plain indices. Random numbers that it draws, from the global generators or from
            its own ``generator``, follow from the seed and the epoch.
        seed: The run's seed.
    """

    def __init__(self, batches: Sampler[list[int]], seed: int) -> None:
        self.batches = batches
        self.seed = seed
        self.epoch = 0
        self.start = 0

    @property
    def sampler(self) -> Any:
        """The sampler of indices inside."""
        return getattr(self.batches, "sampler", self.batches)

    def seek(self, epoch: int, start: int = 0) -> None:
        """Let the next iteration begin with batch number ``start`` of ``epoch``."""
        self.epoch, self.start = epoch, start

    def reseed(self, seed: int) -> None:
        """Use another seed from the next iteration on."""
        self.seed = seed
        if hasattr(self.sampler, "seed"):
            self.sampler.seed = seed

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order_seed = self.epoch, sample_seed(self.seed, self.epoch, 1, ORDER)
        with isolated(order_seed):
            for part in (self.batches, self.sampler):
                if hasattr(part, "set_epoch"):
                    part.set_epoch(epoch)
                own = getattr(part, "generator", None)
                if isinstance(own, torch.Generator):
                    own.manual_seed(order_seed)
            batches = list(islice(self.batches, len(self)))
        if len(batches) < len(self):
            raise ConfigError(
                f"{type(self.batches).__name__} promised {len(self)} batches (its len) and gave {len(batches)} in "
                f"epoch {epoch}: the loop plans its steps by that number, so make __len__ exact"
            )
        for batch in batches[self.start :]:
            yield [Key(int(index), epoch) for index in batch]

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]


def _checked_batch_size(batch_size: int) -> int:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size must be a whole number >= 1, got {batch_size!r}")
    return batch_size


# ---------------------------------------------------------------------- samples


class Samples(list[Any]):
    """The samples of one batch with the keys they were asked for by."""

    def __init__(self, samples: list[Any], keys: Sequence[Key]) -> None:
        super().__init__(samples)
        self.keys = keys


_fetching = False


@contextmanager
def _one_thread() -> Iterator[None]:
    """A worker has one thread; sums over many numbers differ by their last bits between one thread and several."""
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


def _keeping_generators() -> Any:
    """Nobody reads the generators of a worker, and :func:`fetch` keeps those of the main process already."""
    return nullcontext() if _fetching or get_worker_info() is not None else isolated()


_OWN = ("dataset", "seed", "views", "view_seed", "_ids", "_own")


class SeededDataset(Dataset[Any]):
    """A data set whose random numbers follow from the key of each sample.

    Before ``dataset[index]`` the generators of Python, NumPy and PyTorch are seeded from (seed, epoch, index); what was
    in them before comes back afterwards. Generators that its transforms own (MONAI, albumentations) are found and
    seeded too, see :mod:`limbeck_core.engine.reseed`; a data set that keeps one where nobody finds it offers
    ``reseed(seed)``. A data set whose samples change over a run offers ``set_epoch(epoch)``, which is called before
    each sample, in whatever process reads it; with ``views`` it gets the number of the view. Other attributes are those
    of the wrapped data set, to read and to set.

    Args:
        dataset: The user's data set, one with ``__getitem__`` and ``__len__``.
        seed: The run's seed.
        views: Number of different random views of a sample; epoch e then shows view ``e % views``, as a teacher bank
            with that many views needs it. ``None`` never repeats. Views follow from a sample's id (the data set's
            ``ids``, where it has them), so that a subset shows the views of the whole.
        view_seed: Seed of the views, which several runs share; ``None`` is the run's seed.

    Raises:
        ConfigError: for an iterable data set, which cannot start at a position; for ``view_seed`` without ``views``.
    """

    def __init__(self, dataset: Any, seed: int = 0, *, views: int | None = None, view_seed: int | None = None) -> None:
        by_index = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        if isinstance(dataset, IterableDataset) or not by_index:
            raise ConfigError(
                f"{type(dataset).__name__} has no __getitem__ and __len__: training needs samples by index, so that it "
                "can resume at any of them. Index the stream once, or copy it into files"
            )
        if views is not None and views < 1:
            raise ConfigError(f"views must be a whole number >= 1 or None, got {views!r}")
        if view_seed is not None and views is None:
            raise ConfigError(f"view_seed={view_seed} has no effect without views: say how many views a sample has")
        self.dataset = dataset
        self.seed = seed
        self.views = views
        self.view_seed = view_seed
        self._ids = None if views is None else identities(dataset)
        self._own: Reseeder | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        # hooks of OpenMMLab exchange the pipeline of the loader's data set between epochs
        own = name in _OWN or "dataset" not in self.__dict__
        if name != "_own":
            self.__dict__["_own"] = None  # other transforms have other generators
        object.__setattr__(self if own else self.dataset, name, value)

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getstate__(self) -> dict[str, Any]:
        # a spawned worker has generators of its own and looks for them anew
        return {**self.__dict__, "_own": None}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key | int) -> Any:
        return self.__getitems__([key if isinstance(key, Key) else Key(int(key), 0)])[0]

    def __getitems__(self, keys: Sequence[Key]) -> Samples:
        with _keeping_generators(), _one_thread():
            return Samples([self._sample(key) for key in keys], keys)

    def _sample(self, key: Key) -> Any:
        seed = self._seed_of(key)
        seed_generators(seed)
        reseed = getattr(self.dataset, "reseed", None)
        if reseed is not None:
            reseed(seed)
        set_epoch = getattr(self.dataset, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(key.epoch if self.views is None else key.epoch % self.views)
        if self._own is None:
            self._own = Reseeder(self.dataset)
        self._own.reseed(seed)
        return self.dataset[key.sample]

    def _seed_of(self, key: Key) -> int:
        if self.views is None:
            return sample_seed(self.seed, key.epoch, key.sample)
        identity = key.sample if self._ids is None else int(self._ids[key.sample])
        return sample_seed(self.seed if self.view_seed is None else self.view_seed, key.epoch % self.views, identity)


def identities(dataset: Any) -> npt.NDArray[np.int64] | None:
    """Return the id of each sample of a data set that names them by whole numbers, in an attribute ``ids``."""
    ids = getattr(dataset, "ids", None)
    if ids is None or not hasattr(ids, "__len__") or len(ids) != len(dataset):
        return None
    found = np.asarray(ids)
    return found.astype(np.int64) if found.dtype.kind in "iu" and found.ndim == 1 else None


def stack(samples: Sequence[Any]) -> dict[str, Any]:
    """Make a batch of samples: a mapping whose tensors are stacked along a new first axis.

    Args:
        samples: Mappings with the same keys; or pairs, taken as ``inputs`` and ``targets``; or anything else, taken as
            ``inputs``. Tensors, arrays and numbers are stacked, containers are gone through, other objects stay a list.

    Raises:
        ShapeError: if tensors of one name differ in shape, or samples differ in their names.
    """
    named = [_named(sample) for sample in samples]
    for number, sample in enumerate(named):
        if sample.keys() != named[0].keys():
            differing = sorted(map(str, sample.keys() ^ named[0].keys()))
            raise ShapeError(
                f"samples of one batch must have the same names, but {', '.join(differing)} stands in only one of "
                f"sample 0 and sample {number}: give every sample of the data set all of them"
            )
    return {name: _stack_values([sample[name] for sample in named], str(name)) for name in named[0]}


def _named(sample: Any) -> Mapping[str, Any]:
    if isinstance(sample, Mapping):
        return sample
    if isinstance(sample, (tuple, list)) and len(sample) == 2:
        return {"inputs": sample[0], "targets": sample[1]}
    return {"inputs": sample}


def _stack_values(values: list[Any], name: str) -> Any:
    try:
        return default_collate(values)
    except TypeError:
        return values
    except RuntimeError as error:
        shapes = sorted({str(tuple(v.shape)) if hasattr(v, "shape") else type(v).__name__ for v in values})
        raise ShapeError(
            f"{name!r} cannot be stacked into a batch, its shapes are {', '.join(shapes[:6])}: let the data set resize "
            "or pad it, or name a collate_fn in the dataloader"
        ) from error


class KeyedCollate:
    """Makes the batch, with ``ids`` in it, and with random numbers that follow from the batch's first key.

    Args:
        collate: The user's function from samples to a batch; :func:`stack` by default. To a mapping without ``ids`` the
            indices of the samples are added, int64, shape ``(N,)``.
        seed: The run's seed.
        views: Number of views of a sample. To a mapping ``view_ids`` are added then, the number of the view that each
            sample shows, int64, shape ``(N,)``.
    """

    def __init__(self, collate: Callable[[Any], Any] = stack, seed: int = 0, *, views: int | None = None) -> None:
        self.collate = collate
        self.seed = seed
        self.views = views

    def __call__(self, samples: list[Any]) -> Any:
        """Make the batch."""
        keys: Sequence[Key] = samples.keys  # type: ignore[attr-defined]  # the data set gave Samples
        first = keys[0]
        with _keeping_generators(), _one_thread():
            seed_generators(sample_seed(self.seed, first.epoch, first.sample, COLLATE))
            batch = self.collate(samples)
        if isinstance(batch, MutableMapping) and "ids" not in batch:
            batch["ids"] = torch.tensor([key.sample for key in keys], dtype=torch.int64)
        if isinstance(batch, MutableMapping) and self.views is not None:
            batch["view_ids"] = torch.tensor([key.epoch % self.views for key in keys], dtype=torch.int64)
        return batch


def fetch(iterator: Iterator[Any]) -> Any:
    """Return ``next(iterator)`` and leave every generator of this process as it was."""
    global _fetching  # noqa: PLW0603  the flag spares the data set from doing the same again, sample by sample
    with isolated():
        _fetching = True
        try:
            return next(iterator)
        finally:
            _fetching = False


# ---------------------------------------------------------------------- loader


def build_dataloader(config: Mapping[str, Any] | DataLoader[Any], *, seed: int, training: bool) -> DataLoader[Any]:
    """Build the loader of a run from an OpenMMLab-like mapping, or from a PyTorch loader.

    Args:
        config: ``dataset`` (a config or an object), ``batch_size``; optional ``sampler``
            (``dict(shuffle=..., pad=...)`` for ours, or any sampler), ``batch_sampler``, ``collate_fn`` (default
            :func:`stack`), ``drop_last``, ``views`` and ``view_seed`` (see :class:`SeededDataset`), ``worker_init_fn``
            and PyTorch's ``num_workers``, ``persistent_workers`` (default: on where there are workers), ``pin_memory``,
            ``prefetch_factor``, ``timeout``, ``multiprocessing_context``. A PyTorch loader is taken apart and built
            anew around the same data set.
        seed: The run's seed.
        training: Whether ranks must make the same number of steps, and whether shuffling is the default.

    Raises:
        ConfigError: for an option that does not exist (with the closest), a data set without length, or a sampler that
            cannot start at a position.
    """
    if isinstance(config, DataLoader):
        if isinstance(config.batch_sampler, KeyedBatches):
            return config
        config = loader_options(config)
    for name in config:
        if name not in _OPTIONS:
            raise ConfigError(f"a dataloader has no option {name!r}: {closest(name, _OPTIONS)}")
    if "dataset" not in config:
        raise ConfigError("a dataloader needs a dataset: dataset=dict(type=YourDataset, ...)")
    dataset = _built_dataset(config["dataset"])
    views = config.get("views")
    wrapped = SeededDataset(dataset, seed, views=views, view_seed=config.get("view_seed"))
    batches = _batches(config, dataset, seed, training)
    options = {name: config[name] for name in _LOADER_OPTIONS if name in config}
    workers = options.get("num_workers", 0)
    options["persistent_workers"] = bool(workers) and options.get("persistent_workers", True)
    if workers:
        options["worker_init_fn"] = partial(_start_worker, init=_resolved(config.get("worker_init_fn")))
    return DataLoader(
        wrapped,
        batch_sampler=KeyedBatches(batches, seed),
        collate_fn=KeyedCollate(_resolved(config.get("collate_fn")) or stack, seed, views=views),
        # a loader draws a number when it starts; with its own generator it does not draw it from the run's
        generator=torch.Generator().manual_seed(sample_seed(seed, 0, 2, ORDER)),
        **options,
    )


def _start_worker(worker_id: int, init: Callable[[int], None] | None) -> None:
    # Ctrl-C reaches the whole process group; the main process decides when the run stops
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if init is not None:
        init(worker_id)


def loader_options(loader: DataLoader[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`build_dataloader` takes to build such a loader around the same data set."""
    if isinstance(loader, Mapping):
        return dict(loader)
    if isinstance(loader.dataset, IterableDataset):
        return {"dataset": loader.dataset, "batch_size": 1}
    if loader.batch_sampler is None:
        raise ConfigError("a DataLoader with batch_size=None gives single samples: set batch_size")
    options: dict[str, Any] = {"dataset": loader.dataset, "num_workers": loader.num_workers}
    if loader.collate_fn is not default_collate:
        options["collate_fn"] = loader.collate_fn
    if isinstance(loader.batch_sampler, KeyedBatches):  # one of ours
        inner = loader.batch_sampler.batches
        dataset, collate = cast("SeededDataset", loader.dataset), cast("KeyedCollate", loader.collate_fn)
        options |= {"dataset": dataset.dataset, "collate_fn": collate.collate}
        options |= {"batch_size": inner.batch_size} if hasattr(inner, "batch_size") else {"batch_sampler": inner}
    elif type(loader.batch_sampler) is BatchSampler:
        options |= {"batch_size": loader.batch_size, "drop_last": loader.drop_last, "sampler": loader.sampler}
    else:
        options["batch_sampler"] = loader.batch_sampler
    if loader.num_workers:
        options |= {"persistent_workers": loader.persistent_workers, "prefetch_factor": loader.prefetch_factor}
        options |= {"multiprocessing_context": loader.multiprocessing_context, "timeout": loader.timeout}
        if loader.worker_init_fn is not None:
            options["worker_init_fn"] = loader.worker_init_fn
    return options | {"pin_memory": loader.pin_memory}


def _built_dataset(dataset: Any) -> Any:
    if not isinstance(dataset, Mapping):
        return dataset
    built = DATASETS.build(dict(dataset))
    if hasattr(built, "full_init"):
        built.full_init()
    return built


def _batches(config: Mapping[str, Any], dataset: Any, seed: int, training: bool) -> Any:
    sampler = _sampler(config.get("sampler"), dataset, seed, training)
    batch_sampler = config.get("batch_sampler")
    if batch_sampler is not None:
        if not isinstance(batch_sampler, Mapping):
            return batch_sampler
        given = {name: config[name] for name in ("batch_size",) if name in config}
        return DATA_SAMPLERS.build(dict(batch_sampler), default_args={"sampler": sampler, **given})
    if "batch_size" not in config:
        raise ConfigError("a dataloader needs batch_size (samples a step and process) or a batch_sampler")
    size, drop_last = _checked_batch_size(config["batch_size"]), bool(config.get("drop_last", False))
    if training and isinstance(sampler, EpochSampler):
        return EvenBatches(sampler, size, drop_last=drop_last)
    return BatchSampler(sampler, size, drop_last)


def _sampler(config: Any, dataset: Any, seed: int, training: bool) -> Any:
    """Ours wherever it means the same; another one as it is, if it has an end."""
    ours: dict[str, Any] = {"shuffle": training, "seed": seed}
    if config is None:
        return EpochSampler(dataset, **ours)
    if isinstance(config, Mapping):
        options = dict(config)
        kind = options.pop("type", EpochSampler)
        kind = DATA_SAMPLERS.get(kind) if isinstance(kind, str) else kind
        if kind is DefaultSampler:
            kind, options = EpochSampler, {"pad": options.pop("round_up", True), "shuffle": True, **options}
        if kind is EpochSampler:
            return EpochSampler(dataset, **(ours | options))
        config = DATA_SAMPLERS.build({"type": kind, **options}, default_args={"dataset": dataset, "seed": seed})
    if isinstance(config, (DefaultSampler, DistributedSampler)):
        pad = config.round_up if isinstance(config, DefaultSampler) else not config.drop_last
        return EpochSampler(dataset, **(ours | {"shuffle": config.shuffle, "pad": pad}))
    if isinstance(config, SequentialSampler):
        return EpochSampler(dataset, **(ours | {"shuffle": False}))
    if isinstance(config, RandomSampler) and not config.replacement and config.num_samples == len(dataset):
        return EpochSampler(dataset, **(ours | {"shuffle": True}))
    if isinstance(config, InfiniteSampler) or not hasattr(config, "__len__"):
        raise ConfigError(
            f"{type(config).__name__} has no end, and its place in the data cannot be resumed: leave the sampler out; "
            "the loops go over the data again by themselves"
        )
    return config


def _resolved(function: Any) -> Any:
    """A function, from a function, a config of one (``dict(type=..., ...)``), or a name in MMEngine's registry."""
    if isinstance(function, Mapping):
        options = dict(function)
        return partial(_resolved(options.pop("type")), **options)
    if isinstance(function, str):
        found = FUNCTIONS.get(function)
        if found is None:
            raise ConfigError(f"no function is called {function!r} in MMEngine's registry: pass the function itself")
        return found
    return function


__all__ = [
    "EpochSampler",
    "EvenBatches",
    "Key",
    "KeyedBatches",
    "KeyedCollate",
    "SeededDataset",
    "build_dataloader",
    "fetch",
    "identities",
    "loader_options",
    "sample_seed",
    "stack",
]
