"""Batches of texts of like length, so that little of a batch is padding."""

from __future__ import annotations

from typing import Any

import torch

from limbeck_core.engine.sampler import ORDER, EpochSampler, sample_seed
from limbeck_core.errors import ConfigError


class LengthSampler(EpochSampler):
    """The engine's order of an epoch, with texts of like length beside each other.

    The shuffled order is cut into pools of ``pool`` batches; each pool is sorted by length and cut into batches, and
    the batches of all pools are shuffled. So a batch is drawn anew each epoch, from texts of like length. Everything
    follows from the run's seed and the epoch, as in the engine's own sampler, so a run goes on in the middle of one.
    In a config: ``sampler=dict(type=LengthSampler, batch_size=32)``.

    Args:
        dataset: A data set of this package; it tells the ``lengths`` of its samples.
        batch_size: That of the data loader.
        pool: Batches whose texts are sorted together. Larger pools waste less padding and mix less.
        options: As in :class:`~limbeck_core.engine.sampler.EpochSampler`; without ``shuffle`` all is sorted.

    Raises:
        ConfigError: if a number is below 1, or the data set tells no lengths.
    """

    def __init__(self, dataset: Any, *, batch_size: int, pool: int = 50, **options: Any) -> None:
        super().__init__(dataset, **options)
        if batch_size < 1 or pool < 1:
            raise ConfigError(f"batch_size and pool must be 1 or more, got {batch_size} and {pool}")
        lengths = getattr(dataset, "lengths", None)
        if lengths is None or len(lengths) != len(dataset):
            raise ConfigError(
                f"{type(dataset).__name__} does not tell the lengths of its samples: LengthSampler needs a property "
                "'lengths' with one number a sample"
            )
        self.lengths = list(lengths)
        self.batch = batch_size * self.world_size
        self.pool = pool

    def order(self) -> list[int]:
        """Return the whole order of the epoch, before it is shared out."""
        order = super().order()
        if not self.shuffle:
            return sorted(order, key=self.lengths.__getitem__)
        size = self.batch * self.pool
        batches = []
        for start in range(0, len(order), size):
            pool = sorted(order[start : start + size], key=self.lengths.__getitem__)
            batches += [pool[first : first + self.batch] for first in range(0, len(pool), self.batch)]
        rest = (
            [batches.pop()] if len(batches[-1]) < self.batch else []
        )  # a short batch in between would shift all others
        generator = torch.Generator().manual_seed(sample_seed(self.seed, self.epoch, 1, ORDER))
        mixed = [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]
        return [index for batch in [*mixed, *rest] for index in batch]
