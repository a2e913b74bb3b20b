"""Parts of a data set: chosen samples, held-out ones, and a long tail of classes. Ids stay those of the whole."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from limbeck_core.build import build
from limbeck_core.errors import DataError
from limbeck_vision.data.dataset import ImageDataset, Labels

_HELD_OUT_STREAM = 1


class Subset(ImageDataset):
    """Chosen samples of a data set, in the order given, under their old ids and with the old transform.

    Args:
        dataset: The whole data set, or a config of it.
        indices: Positions in it, each at most once.

    Raises:
        DataError: if a position is outside or repeated.
    """

    def __init__(self, dataset: ImageDataset | Mapping[str, Any], indices: Sequence[int] | Labels) -> None:
        self.dataset: ImageDataset = build(dataset)
        self.indices = np.asarray(indices, dtype=np.int64)
        outside = self.indices[(self.indices < 0) | (self.indices >= len(self.dataset))]
        if len(outside):
            raise DataError(f"indices must lie between 0 and {len(self.dataset) - 1}, got {outside[0]}")
        if len(np.unique(self.indices)) != len(self.indices):
            raise DataError("indices must name each sample at most once: ids would no longer tell samples apart")
        targets = self.dataset.targets
        super().__init__(
            self.dataset.classes,
            None if targets is None else targets[self.indices],
            ids=self.dataset.ids[self.indices],
            transform=self.dataset.transform,
        )

    def image(self, position: int) -> Tensor:
        """Return one image before the transform, float ``(C, H, W)`` in [0, 1]."""
        return self.dataset.image(int(self.indices[position]))


class HeldOut(Subset):
    """A training set cut in two by chance: a part to train on, and one to choose settings by.

    Both parts are described alike but for ``held_out``; together they are the whole, under its ids.

    Args:
        dataset: The whole training set, or a config of it.
        count: How many samples are held out; or, below 1, which share of them.
        held_out: This is the part that is held out, or the rest.
        seed: Which samples are held out.

    Raises:
        ValueError: if one of the parts would be empty.
    """

    def __init__(
        self, dataset: ImageDataset | Mapping[str, Any], *, count: float, held_out: bool, seed: int = 0
    ) -> None:
        whole: ImageDataset = build(dataset)
        number = round(count * len(whole)) if count < 1 else int(count)
        if not 0 < number < len(whole):
            raise ValueError(
                f"count must leave samples in both parts of {len(whole)}, got {count}: give a number below that, or a "
                "share such as 0.2"
            )
        # the generator whose stream NumPy never changes; labels do not matter, so noise in them moves nothing. A stream
        # of its own: a data set that draws its wrong labels with the same seed would have them all held out
        order = np.random.RandomState([seed, _HELD_OUT_STREAM]).permutation(len(whole))
        super().__init__(whole, np.sort(order[:number] if held_out else order[number:]))


class LongTailed(Subset):
    r"""A balanced data set cut down to classes of exponentially falling size.

    .. math:: n_c = \lfloor n_0 \, r^{-c / (C - 1)} \rfloor

    with :math:`n_0` the size of the largest class, :math:`r` the imbalance and :math:`c` the label; a class that has
    fewer keeps all.

    Args:
        dataset: The whole data set, or a config of it.
        imbalance: Largest class over smallest, at least 1. The usual values are 10, 50 and 100.
        seed: Which samples of each class are kept.

    ``class_counts`` gives the size of each class, and ``absent`` the names of those with no sample at all, of which
    there is also a warning.

    Raises:
        DataError: if the data set has no labels or fewer than two classes.
        ValueError: if ``imbalance`` is below 1.

    Reference:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, arXiv:1901.05555, section 5.1; rounded
        as by Cao et al., arXiv:1906.07413.
    """

    def __init__(self, dataset: ImageDataset | Mapping[str, Any], *, imbalance: float = 100.0, seed: int = 0) -> None:
        whole: ImageDataset = build(dataset)
        if imbalance < 1:
            raise ValueError(f"imbalance must be at least 1 (largest class over smallest), got {imbalance}")
        if whole.targets is None or whole.num_classes < 2:
            raise DataError(f"{type(whole).__name__} has no labels of at least two classes to make a long tail of")
        largest, last = max(whole.class_counts), whole.num_classes - 1
        draw = np.random.RandomState(seed)  # the one generator whose stream NumPy never changes
        kept = []
        for label in range(whole.num_classes):
            # a hair is added against rounding: 500 / 100 must not become 4
            count = int(largest * imbalance ** (-label / last) + 1e-9)
            kept.append(draw.permutation(np.flatnonzero(whole.targets == label))[:count])
        super().__init__(whole, np.sort(np.concatenate(kept)))
        self.absent = tuple(name for name, count in zip(self.classes, self.class_counts, strict=True) if not count)
        if self.absent:
            warnings.warn(
                f"{len(self.absent)} of {whole.num_classes} classes have no sample left at imbalance {imbalance}: "
                f"{', '.join(self.absent[:10])}. They are never learnt; lower the imbalance or take a larger data set",
                stacklevel=2,
            )
