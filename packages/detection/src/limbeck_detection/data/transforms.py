"""D-FINE's augmentation, of torchvision's transforms; boxes move with their image.

All take and give a mapping of ``image``, ``boxes`` and ``labels`` (see
:class:`~limbeck_detection.data.dataset.DetectionDataset`) and draw from PyTorch's global generator, which is seeded for
each sample.
"""

from __future__ import annotations

from typing import Any

from torchvision.transforms import v2

from limbeck_core.errors import ConfigError

Sample = dict[str, Any]


class StretchTo:
    """Resize to a square without keeping the aspect ratio: how D-FINE trains and is evaluated.

    Args:
        size: Height and width of the result in pixels.

    Raises:
        ConfigError: if ``size`` is below 1.
    """

    def __init__(self, size: int = 640) -> None:
        self.size = _checked(size)
        self._resize = v2.Resize([size, size], antialias=True)

    def __call__(self, sample: Sample) -> Sample:
        """Resize image and boxes."""
        resized: Sample = self._resize(sample)
        return resized


class DFINEAugmentation:
    """D-FINE's training augmentation, strong until ``stop_epoch`` and weak from then on.

    In order: photometric distortion (probability 0.5), zoom-out onto a black canvas of 1 to 4 times the sides (0.5), a
    crop around at least one box (0.8; images without boxes are left as they are), boxes below one pixel dropped,
    horizontal flip (0.5), resizing to a square, boxes below one pixel dropped again. From ``stop_epoch`` on the first
    three are left out, so that the end of the training sees images like those it will be judged on.

    Args:
        size: Height and width of the result in pixels.
        stop_epoch: First epoch, counted from 0, without the strong part; ``None`` never stops, 0 never begins.

    Raises:
        ConfigError: if ``size`` is below 1.

    Reference: Peng et al., D-FINE, arXiv:2410.13842, appendix, with the order of the released configs.
    """

    def __init__(self, size: int = 640, *, stop_epoch: int | None = None) -> None:
        self.size = _checked(size)
        self.stop_epoch = stop_epoch
        self.epoch = 0
        self._colours = v2.RandomPhotometricDistort(p=0.5)
        self._zoom = v2.RandomZoomOut(fill=0, side_range=(1.0, 4.0), p=0.5)
        self._crop = v2.RandomApply([v2.RandomIoUCrop()], p=0.8)
        clean = v2.SanitizeBoundingBoxes(min_size=1)
        resize = v2.Resize([size, size], antialias=True)
        self._rest = v2.Compose([clean, v2.RandomHorizontalFlip(), resize, clean])

    @property
    def strong(self) -> bool:
        """Whether the strong part is on in this epoch."""
        return self.stop_epoch is None or self.epoch < self.stop_epoch

    def set_epoch(self, epoch: int) -> None:
        """Say which pass over the data the next sample is for."""
        self.epoch = epoch

    def __call__(self, sample: Sample) -> Sample:
        """Augment one image with its boxes."""
        if self.strong:
            sample = self._zoom(self._colours(sample))
            if len(sample["boxes"]):  # without a box to keep, the crop would search for long and find nothing
                sample = self._crop(sample)
        result: Sample = self._rest(sample)
        return result


def _checked(size: int) -> int:
    if not isinstance(size, int) or size < 1:
        raise ConfigError(f"size of a transform must be a whole number of pixels >= 1, got {size!r}")
    return size
