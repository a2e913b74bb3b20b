"""What every data set here gives: one image in [0, 1], its label and an id that stays the same in any subset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from limbeck_core.build import build
from limbeck_core.errors import DataError

Labels = npt.NDArray[np.int64]
Transform = Callable[[Tensor], Tensor]


class ImageDataset(Dataset[dict[str, Any]], ABC):
    """A data set of images. A sample is a mapping of ``inputs``, ``targets`` (where there are labels) and ``ids``.

    ``inputs`` is a float tensor ``(C, H, W)`` in [0, 1], after the transform; models normalise for themselves.
    ``targets`` and ``ids`` are integers.

    Args:
        classes: Names of the classes, by label.
        targets: Label of each image; ``None`` where there are none.
        ids: Id of each image, which a subset keeps. Default: its position.
        length: Number of images; needed without labels only.
        transform: Applied to the image, or a config of it. It should draw from PyTorch's global generator, which is
            seeded for each sample.
    """

    def __init__(
        self,
        classes: Sequence[str],
        targets: Labels | None,
        *,
        ids: Labels | None = None,
        length: int | None = None,
        transform: Transform | Mapping[str, Any] | None = None,
    ) -> None:
        self.classes = tuple(classes)
        self.targets = targets
        size = len(targets) if targets is not None else (length or 0)
        self.ids = np.arange(size, dtype=np.int64) if ids is None else ids
        self.transform: Transform | None = build(transform)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Images of each class; none where there are no labels."""
        if self.targets is None:
            return ()
        return tuple(np.bincount(self.targets, minlength=self.num_classes).tolist())

    @abstractmethod
    def image(self, position: int) -> Tensor:
        """Return one image before the transform, float ``(C, H, W)`` in [0, 1]."""

    def subset(self, indices: Sequence[int] | Labels) -> Subset:
        """Return the samples at these positions, see :class:`Subset`."""
        return Subset(self, indices)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> dict[str, Any]:
        identity = int(self.ids[position])  # also refuses a position outside
        image = self.image(position)
        sample: dict[str, Any] = {"inputs": image if self.transform is None else self.transform(image)}
        if self.targets is not None:
            sample["targets"] = int(self.targets[position])
        sample["ids"] = identity
        return sample


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


class ImageArray(ImageDataset):
    """Images held in memory as one array of bytes.

    Args:
        images: ``uint8``, shape ``(N, C, H, W)``.
        targets: Labels, shape ``(N,)``.
        classes: Names of the classes.
        ids: See :class:`ImageDataset`.
        transform: See :class:`ImageDataset`.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        targets: Labels,
        classes: Sequence[str],
        *,
        ids: Labels | None = None,
        transform: Transform | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(classes, targets, ids=ids, transform=transform)
        self._images = torch.from_numpy(images)

    def image(self, position: int) -> Tensor:
        """Return one image before the transform, float ``(C, H, W)`` in [0, 1]."""
        return self._images[position].float() / 255
