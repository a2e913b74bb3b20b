"""Random geometry of the usual recipes, of torchvision's transforms.

Each takes and gives a float image ``(C, H, W)`` in [0, 1] and draws from PyTorch's global generator. None normalises:
models do that for themselves, so that teacher and student share one geometry.
"""

from __future__ import annotations

from torchvision.transforms import v2


def crop_and_flip(size: int = 32, *, padding: int = 4) -> v2.Transform:
    """Pad with black, cut out a random square and flip half of the images: the recipe of CIFAR.

    Args:
        size: Height and width of the result.
        padding: Pixels added on each side.
    """
    return v2.Compose([v2.RandomCrop(size, padding=padding), v2.RandomHorizontalFlip()])


def small_shifts(size: int = 8, *, pixels: int = 1) -> v2.Transform:
    """Move the image by up to ``pixels`` in both directions; the border is filled with black.

    Args:
        size: Height and width of the image, which stay the same.
        pixels: Largest shift.
    """
    return v2.RandomCrop(size, padding=pixels)


def random_resized_crop(size: int = 224, *, smallest: float = 0.08) -> v2.Transform:
    """Cut out a random part of random shape, resize it and flip half of the images: the recipe of ImageNet.

    Args:
        size: Height and width of the result.
        smallest: Smallest share of the area that is cut out.
    """
    return v2.Compose([v2.RandomResizedCrop(size, scale=(smallest, 1.0)), v2.RandomHorizontalFlip()])


def center_crop(size: int = 224, *, share: float = 0.875) -> v2.Transform:
    """Resize the shorter side and cut the middle out: how ImageNet's models are evaluated.

    Args:
        size: Height and width of the result.
        share: ``size`` over the length of the resized shorter side.
    """
    return v2.Compose([v2.Resize(round(size / share)), v2.CenterCrop(size)])
