"""Two views of every image, weakly and strongly augmented, and one forward pass for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from limbeck_core.build import build
from limbeck_core.errors import ShapeError
from limbeck_vision.data.dataset import Transform
from limbeck_vision.models.normalization import ImageCall


class TwoViews(nn.Module):
    """Transform that gives a weakly and a strongly augmented view of an image, ``(C, H, W)`` to ``(2, C, H, W)``.

    Args:
        weak: Transform of the first view, or a config of it.
        strong: Transform of the second view, or a config of it; it gives images of the same size.
    """

    def __init__(self, weak: Transform | Mapping[str, Any], strong: Transform | Mapping[str, Any]) -> None:
        super().__init__()
        self.weak: Transform = build(weak)
        self.strong: Transform = build(strong)

    def forward(self, image: Tensor) -> Tensor:
        """Return both views.

        Raises:
            ShapeError: if they differ in size.
        """
        views = [self.weak(image), self.strong(image)]
        if views[0].shape != views[1].shape:
            raise ShapeError(
                f"both views of an image must have one size, got {tuple(views[0].shape)} and {tuple(views[1].shape)}: "
                "let both transforms end in the same crop"
            )
        return torch.stack(views)


class TwoViewCall(ImageCall):
    """Run the student once on all views of a batch, ``(N, V, C, H, W)`` to ``(V * N, C, H, W)``.

    Batch norm sees the views together, and taps give V * N rows, the first view's before the second's. Images without
    an axis of views, as in evaluation, are taken as they are.
    """

    def capture(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        """Run the model on its own normalisation of the views.

        Raises:
            MatchError: if the model does not say how its input is normalised, or the batch lacks the images.
        """
        images = batch.get(view)
        if isinstance(images, Tensor) and images.ndim == 5:
            batch = {**batch, view: images.transpose(0, 1).flatten(0, 1)}
        return super().capture(model, batch, view)


class PickView(nn.Module):
    """Adapter that takes one view's rows out of all: ``(V * N, ...)`` to ``(N, ...)``.

    Args:
        index: Which view, from 0.
        views: Number V of views.

    Raises:
        ValueError: if there is no such view.

    >>> PickView(1)(torch.tensor([1, 2, 3, 4]))
    tensor([3, 4])
    """

    def __init__(self, index: int, views: int = 2) -> None:
        super().__init__()
        if not 0 <= index < views:
            raise ValueError(f"index must lie between 0 and views - 1 = {views - 1}, got {index}")
        self.index = index
        self.views = views

    def forward(self, values: Tensor) -> Tensor:
        """Take the rows of the view.

        Raises:
            ShapeError: if the rows are no multiple of the views.
        """
        if len(values) % self.views:
            raise ShapeError(
                f"PickView expects rows of {self.views} views, a multiple of {self.views}, got {tuple(values.shape)}: "
                "give the training set transform=TwoViews(...) and the distiller call=TwoViewCall()"
            )
        rows = len(values) // self.views
        return values[self.index * rows : (self.index + 1) * rows]

    def extra_repr(self) -> str:
        """Show the view in ``repr``."""
        return f"index={self.index}, views={self.views}"


class Cutout(nn.Module):
    """Blacken a square around a random position; at the border a part of it lies outside.

    Args:
        length: Side of the square in pixels.

    Reference:
        DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, arXiv:1708.04552.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, image: Tensor) -> Tensor:
        """Return a copy of the image ``(C, H, W)`` with the square in it."""
        height, width = image.shape[-2:]
        top = int(torch.randint(height, ())) - self.length // 2
        left = int(torch.randint(width, ())) - self.length // 2
        cut = image.clone()
        cut[..., max(top, 0) : max(top + self.length, 0), max(left, 0) : max(left + self.length, 0)] = 0.0
        return cut


def weak_cifar(size: int = 32) -> v2.Transform:
    """Random crop, flip and a turn of up to 15 degrees (arXiv:2308.09922, CIFAR).

    Args:
        size: Height and width of the result.
    """
    return v2.Compose([v2.RandomCrop(size, padding=4), v2.RandomHorizontalFlip(), v2.RandomRotation(15)])


def strong_cifar(size: int = 32) -> v2.Transform:
    """Random crop, flip, AutoAugment's CIFAR policy and one Cutout of half the size (arXiv:2308.09922, CIFAR).

    Args:
        size: Height and width of the result.
    """
    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    return v2.Compose([v2.RandomCrop(size, padding=4), v2.RandomHorizontalFlip(), policy, Cutout(size // 2)])


def strong_digits(size: int = 8) -> v2.Transform:
    """Shifts by one pixel, a turn of up to 15 degrees and one Cutout of three pixels, for 8x8 digits.

    Args:
        size: Height and width of the image, which stay the same.
    """
    return v2.Compose([v2.RandomCrop(size, padding=1), v2.RandomRotation(15), Cutout(3)])
