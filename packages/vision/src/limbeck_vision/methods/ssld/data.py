"""Labelled and unlabelled images as one data set without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.errors import DataError
from limbeck_vision.data.dataset import ImageDataset, Subset, Transform
from limbeck_vision.data.folders import Unlabelled
from limbeck_vision.methods.ssld.selection import read_selection, score_images, select_per_class


class WithoutLabels(ImageDataset):
    """Several data sets after one another, their labels left out, under new ids from 0.

    Args:
        datasets: The data sets, or configs of them; their own transforms are not used.
        transform: Applied to every image; see :class:`~limbeck_vision.data.dataset.ImageDataset`.

    Raises:
        DataError: if there is no image.
    """

    def __init__(
        self,
        datasets: Sequence[ImageDataset | Mapping[str, Any]],
        *,
        transform: Transform | Mapping[str, Any] | None = None,
    ) -> None:
        self.datasets: list[ImageDataset] = [build(dataset) for dataset in datasets]
        self._ends = np.cumsum([len(dataset) for dataset in self.datasets])
        if not len(self._ends) or not self._ends[-1]:
            raise DataError(f"{len(self.datasets)} data sets hold no image together: give one that does")
        super().__init__((), None, length=int(self._ends[-1]), transform=transform)

    def image(self, position: int) -> Tensor:
        """Return one image before the transform, float ``(C, H, W)`` in [0, 1]."""
        position = range(len(self))[position]
        number = int(np.searchsorted(self._ends, position, side="right"))
        return self.datasets[number].image(position - int(self._ends[number] - len(self.datasets[number])))


class SelectedImages(Subset):
    """The chosen images of an unlabelled folder, in the order of the file.

    Args:
        root: The folder, see :class:`~limbeck_vision.data.Unlabelled`.
        selection: Text file with one number a line, as ``python -m limbeck_vision.methods.ssld.select`` writes it; a
            relative path starts at ``root``. ``None`` takes all.
        transform: See :class:`~limbeck_vision.data.dataset.ImageDataset`.

    Raises:
        DataError: if the folder or the file is missing, or a number names no image or stands twice.
    """

    def __init__(
        self,
        root: str | Path,
        selection: str | Path | None,
        *,
        transform: Transform | Mapping[str, Any] | None = None,
    ) -> None:
        pool = Unlabelled(root, transform=transform)
        super().__init__(pool, np.arange(len(pool)) if selection is None else read_selection(Path(root) / selection))


class TopPerClass(Subset):
    """The images of an unlabelled set that a teacher is surest of, chosen when the set is built.

    For pools that are scored in seconds; of larger ones choose once, with
    ``python -m limbeck_vision.methods.ssld.select``, and read the choice with :class:`SelectedImages`.

    Args:
        dataset: The pool, or a config of it.
        teacher: The classifier, or a config of it (such as one of :func:`limbeck_core.pretrained`).
        per_class: Largest number of images of a class, see
            :func:`~limbeck_vision.methods.ssld.selection.select_per_class`.

    Raises:
        DataError: if the pool is empty.
        CheckpointError: if the teacher's weights cannot be read.
    """

    def __init__(
        self,
        dataset: ImageDataset | Mapping[str, Any],
        *,
        teacher: nn.Module | Mapping[str, Any],
        per_class: int,
    ) -> None:
        pool: ImageDataset = build(dataset)
        classifier: nn.Module = build(teacher)
        model = getattr(classifier, "model", classifier)
        super().__init__(pool, select_per_class(score_images(model, pool), per_class).numpy())


class WithDistractors(ImageDataset):
    """A data set without labels, followed by as many images that are of no class: means of two of its images.

    A pool for trying out selection: half of it is not worth training on.

    Args:
        dataset: The data set, or a config of it; its transform is not used.
        seed: Which images are joined.
    """

    def __init__(self, dataset: ImageDataset | Mapping[str, Any], *, seed: int = 0) -> None:
        self.dataset: ImageDataset = build(dataset)
        count = len(self.dataset)
        super().__init__((), None, length=2 * count)
        draw = np.random.RandomState(seed)  # the one generator whose stream NumPy never changes
        order = draw.permutation(count)
        self._pairs = np.stack([order, np.roll(order, 1)], axis=1)  # never an image with itself

    def image(self, position: int) -> Tensor:
        """Return one image, float ``(C, H, W)`` in [0, 1]."""
        if position < len(self.dataset):
            return self.dataset.image(position)
        first, second = self._pairs[position - len(self.dataset)]
        return (self.dataset.image(int(first)) + self.dataset.image(int(second))) / 2
