"""The real handwritten digits that scikit-learn ships: nothing to download, trained on in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import interpolate

from limbeck_core.checks import check_between
from limbeck_vision.data.dataset import ImageDataset, Labels, Transform

_LARGEST = 16  # grey levels of the set


class Digits(ImageDataset):
    """1797 handwritten digits of 8x8 pixels in ten classes.

    The split into training and test images is stratified by class and always the same for one ``train_size``; ids are
    positions in it.

    Args:
        train: The training part, or the test part, which holds the rest.
        size: Height and width; other than 8 is interpolated (bilinear).
        channels: Copies of the grey channel; 3 suits models for colour images.
        train_size: Images for training.
        label_noise: Share of the training images that get a wrong label, drawn evenly from the other nine.
        labels_per_class: Keep only so many training images of each class.
        seed: Which images get the noise and which are kept.
        transform: See :class:`~limbeck_vision.data.dataset.ImageDataset`; ``small_shifts`` suits digits.

    Raises:
        ValueError: if a number is out of range, or noise or fewer labels are asked of the test part.

    Reference:
        Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998 (its test
        part, as scikit-learn's ``load_digits`` gives it).
    """

    def __init__(
        self,
        train: bool = True,
        *,
        size: int = 8,
        channels: int = 1,
        train_size: int = 1200,
        label_noise: float = 0.0,
        labels_per_class: int | None = None,
        seed: int = 0,
        transform: Transform | Mapping[str, Any] | None = None,
    ) -> None:
        check_between(label_noise, "label_noise", 0.0, 1.0)
        if size < 1 or channels < 1:
            raise ValueError(f"size and channels must be at least 1, got {size} and {channels}")
        if not train and (label_noise or labels_per_class is not None):
            raise ValueError(
                "label_noise and labels_per_class are for training images: leave them out with train=False"
            )
        data = load_digits()
        labels = np.asarray(data.target, dtype=np.int64)
        if not 10 <= train_size <= len(labels) - 10:
            raise ValueError(
                f"train_size must lie between 10 and {len(labels) - 10}, so that both parts hold every class, got "
                f"{train_size}"
            )
        parts = train_test_split(np.arange(len(labels)), train_size=train_size, stratify=labels, random_state=0)
        chosen = parts[0] if train else parts[1]
        targets, ids = labels[chosen], np.arange(len(chosen), dtype=np.int64)
        draw = np.random.RandomState(seed)  # the one generator whose stream NumPy never changes
        if labels_per_class is not None:
            ids = _keep(targets, labels_per_class, draw)
            targets = targets[ids]
        if label_noise:
            targets = _with_noise(targets, label_noise, draw)
        super().__init__([str(digit) for digit in range(10)], targets, ids=ids, transform=transform)
        pixels = torch.from_numpy(data.images[chosen][ids]).float()[:, None] / _LARGEST
        if size != pixels.shape[-1]:
            pixels = interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False).clamp_(0, 1)
        self._images = pixels
        self._channels = channels

    def image(self, position: int) -> Tensor:
        """Return one image before the transform, float ``(C, H, W)`` in [0, 1]."""
        return self._images[position].repeat(self._channels, 1, 1)


def _keep(targets: Labels, count: int, draw: np.random.RandomState) -> Labels:
    smallest = int(np.bincount(targets).min())
    if not 1 <= count <= smallest:
        raise ValueError(f"labels_per_class must lie between 1 and {smallest} (the rarest class), got {count}")
    kept = [draw.permutation(np.flatnonzero(targets == label))[:count] for label in range(10)]
    positions: Labels = np.sort(np.concatenate(kept)).astype(np.int64)
    return positions


def _with_noise(targets: Labels, share: float, draw: np.random.RandomState) -> Labels:
    wrong = draw.permutation(len(targets))[: round(share * len(targets))]
    noisy: Labels = targets.copy()
    noisy[wrong] = (noisy[wrong] + draw.randint(1, 10, size=len(wrong))) % 10
    return noisy
