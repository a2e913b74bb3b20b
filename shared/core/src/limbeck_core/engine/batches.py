"""The first batches of a loader, read in this process: enough to look at a config without starting a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck_core.engine.sampler import build_dataloader, fetch
from limbeck_core.engine.state import isolated

# Workers do not change what is read, and starting them takes longer than a few batches.
_WORKERS = (
    "num_workers",
    "persistent_workers",
    "prefetch_factor",
    "timeout",
    "multiprocessing_context",
    "worker_init_fn",
    "pin_memory",
)
_BATCHES = ("batch_size", "batch_sampler", "sampler", "drop_last")


def first_batches(
    loader: Mapping[str, Any], count: int, *, seed: int, training: bool, batch_size: int | None = None
) -> list[Any]:
    """Read the first batches of a loader, as a run would see them; generators are as they were afterwards.

    Arguments and errors are those of :func:`small_loader`; ``count`` batches are read, fewer where the data set ends.
    """
    return read(small_loader(loader, seed=seed, training=training, batch_size=batch_size), count)


def small_loader(loader: Mapping[str, Any], *, seed: int, training: bool, batch_size: int | None = None) -> Any:
    """Build a loader that reads in this process.

    Args:
        loader: Config of a loader (see :func:`~limbeck_core.engine.sampler.build_dataloader`).
        seed: The run's seed.
        training: Whether they are read as for training, shuffled by default.
        batch_size: Samples a batch, in the order of the data set, whatever the loader says.

    Raises:
        ConfigError, DataError: as the loader or the data set says.
    """
    left_out = (*_WORKERS, *(_BATCHES if batch_size is not None else ()))
    options: dict[str, Any] = {name: value for name, value in loader.items() if name not in left_out}
    if batch_size is not None:
        options |= {"batch_size": batch_size, "sampler": {"shuffle": False}}
    return build_dataloader(options, seed=seed, training=training)


def read(built: Any, count: int) -> list[Any]:
    """Read the first batches of a loader that was built; generators are as they were afterwards."""
    with isolated():
        iterator = iter(built)
    return [fetch(iterator) for _ in range(min(count, len(built)))]
