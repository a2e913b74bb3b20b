"""Data sets, their random geometry, and the mixing of batches. Nothing here downloads."""

from limbeck_vision.data.cifar import CIFAR10, CIFAR100
from limbeck_vision.data.dataset import ImageArray, ImageDataset, Subset
from limbeck_vision.data.digits import Digits
from limbeck_vision.data.folders import ImageFolder, Unlabelled
from limbeck_vision.data.long_tailed import LongTailed
from limbeck_vision.data.mixing import mix_batch, mix_collate
from limbeck_vision.data.mnist import MNIST5000
from limbeck_vision.data.transforms import center_crop, crop_and_flip, random_resized_crop, small_shifts

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST5000",
    "Digits",
    "ImageArray",
    "ImageDataset",
    "ImageFolder",
    "LongTailed",
    "Subset",
    "Unlabelled",
    "center_crop",
    "crop_and_flip",
    "mix_batch",
    "mix_collate",
    "random_resized_crop",
    "small_shifts",
]
