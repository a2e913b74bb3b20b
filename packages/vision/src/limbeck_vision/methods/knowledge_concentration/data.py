"""Data with verticals: two real digits side by side, and the part of a data set that a specialist sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck_core.build import build
from limbeck_core.errors import DataError
from limbeck_vision.data import Digits, ImageDataset, Subset
from limbeck_vision.data.dataset import Transform
from limbeck_vision.methods.knowledge_concentration.verticals import check_sizes, starts


class DigitPairs(ImageDataset):
    """A hundred classes, the numbers 00 to 99, as two real digits of 8x8 pixels side by side.

    Grouped by their first digit they make verticals of any multiple of ten. Pairs are drawn evenly over the classes; no
    digit image is in both parts.

    Args:
        train: The training part of the digits, or the test part.
        count: Pairs that are made.
        channels: Copies of the grey channel.
        seed: Which digits are paired.
        transform: See :class:`~limbeck_vision.data.dataset.ImageDataset`.

    Raises:
        ValueError: if ``count`` is below 1.
    """

    def __init__(
        self,
        train: bool = True,
        *,
        count: int = 4000,
        channels: int = 3,
        seed: int = 0,
        transform: Transform | Mapping[str, Any] | None = None,
    ) -> None:
        if count < 1:
            raise ValueError(f"count must be 1 or more, got {count}")
        self._digits = Digits(train, channels=channels)
        labels: Any = self._digits.targets
        draw = np.random.RandomState([seed, int(train)])
        targets = draw.permutation(np.arange(count, dtype=np.int64) % 100)
        by_label = [np.flatnonzero(labels == label) for label in range(10)]
        self._pairs = [
            tuple(int(draw.choice(by_label[digit])) for digit in divmod(target, 10)) for target in targets.tolist()
        ]
        super().__init__([f"{number:02d}" for number in range(100)], targets, transform=transform)

    def image(self, position: int) -> Tensor:
        """Return one image before the transform, float ``(C, 8, 16)`` in [0, 1]."""
        return torch.cat([self._digits.image(digit) for digit in self._pairs[position]], dim=2)


class OneVertical(Subset):
    """The samples of one vertical, with labels counted from its first one: what a specialist is trained on.

    Args:
        dataset: The whole data set, whose labels are ordered by vertical, or a config of it.
        sizes: Labels of each vertical.
        vertical: Which, from 0.

    Raises:
        DataError: if there are no labels, their number is not that of the verticals together, or there is no such
            vertical.
    """

    def __init__(self, dataset: ImageDataset | Mapping[str, Any], *, sizes: Sequence[int], vertical: int) -> None:
        whole: ImageDataset = build(dataset)
        checked = check_sizes(sizes)
        if whole.targets is None or sum(checked) != whole.num_classes or not 0 <= vertical < len(checked):
            raise DataError(
                f"{type(whole).__name__} has {whole.num_classes} classes; vertical {vertical} of sizes {checked} "
                f"({sum(checked)} labels) cannot be cut out of it"
            )
        start = starts(checked)[vertical]
        inside = (whole.targets >= start) & (whole.targets < start + checked[vertical])
        super().__init__(whole, np.flatnonzero(inside))
        self.classes = self.classes[start : start + checked[vertical]]
        self.targets = self.targets - start if self.targets is not None else None
