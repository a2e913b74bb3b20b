"""A long tail of classes made of a balanced data set."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from limbeck_core.build import build
from limbeck_core.errors import DataError
from limbeck_vision.data.dataset import ImageDataset, Subset


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
