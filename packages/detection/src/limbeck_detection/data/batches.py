"""From samples to a batch: images stacked, boxes in a list, one size for all, which may change with the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from limbeck_core.errors import ConfigError, ShapeError

_STEP = 32  # the coarsest stride of the detectors


def detection_batch(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make a batch: ``inputs`` ``(B, 3, H, W)``, ``targets`` (a list of mappings), ``sizes`` ``(B, 2)``, ``ids``.

    ``truth`` stays a list where samples have it. For ``collate_fn`` of a dataloader.

    Raises:
        ShapeError: if the images differ in size.
    """
    images: list[Tensor] = [sample["inputs"] for sample in samples]
    sizes = sorted({tuple(image.shape[-2:]) for image in images})
    if len(sizes) > 1:
        raise ShapeError(
            f"images of one batch differ in size (height, width): {', '.join(map(str, sizes[:6]))}; give the data set "
            "a transform that resizes, such as StretchTo(640)"
        )
    batch: dict[str, Any] = {
        "inputs": torch.stack(images),
        "targets": [dict(sample["targets"]) for sample in samples],
        "sizes": torch.stack([sample["sizes"] for sample in samples]),
        "ids": torch.tensor([int(sample["ids"]) for sample in samples]),
    }
    if "truth" in samples[0]:
        batch["truth"] = [sample["truth"] for sample in samples]
    return batch


def scales_around(size: int, repeat: int) -> tuple[int, ...]:
    """Multiples of 32 from three quarters to five quarters of ``size``, and ``size`` itself ``repeat`` times.

    Raises:
        ConfigError: if ``size`` is no multiple of 32 or ``repeat`` below 1.
    """
    if size < _STEP or size % _STEP or repeat < 1:
        raise ConfigError(f"multi-scale training needs a multiple of {_STEP} and repeat >= 1, got {size} and {repeat}")
    low, high = int(size * 0.75 / _STEP) * _STEP, int(size * 1.25 / _STEP) * _STEP
    return (*range(low, size, _STEP), *([size] * repeat), *range(size + _STEP, high + 1, _STEP))


def multi_scale_batch(
    samples: Sequence[Mapping[str, Any]], *, size: int = 640, repeat: int = 20, stop_epoch: int | None = None
) -> dict[str, Any]:
    """Make a batch as :func:`detection_batch`, resized to a random size until ``stop_epoch``.

    The size is one of :func:`scales_around`; the nearest pixel is taken, as in the reference. Boxes are in units of the
    image, so they stay. With ``size=640``: 480 to 608, 640, and 672 to 800. For ``collate_fn`` of a dataloader, whose
    keys tell the epoch.

    Args:
        samples: The samples, all of ``size``.
        size: The usual size, a multiple of 32.
        repeat: How often ``size`` stands among the choices.
        stop_epoch: First epoch, counted from 0, in which images keep their size; ``None`` never stops.

    Raises:
        ConfigError: as :func:`scales_around`.
        ShapeError: as :func:`detection_batch`.
    """
    choices = scales_around(size, repeat)
    batch = detection_batch(samples)
    keys = getattr(samples, "keys", None)
    epoch = keys[0].epoch if keys else 0
    if stop_epoch is None or epoch < stop_epoch:
        chosen = choices[int(torch.randint(len(choices), ()))]
        if batch["inputs"].shape[-2:] != (chosen, chosen):
            batch["inputs"] = interpolate(batch["inputs"], size=(chosen, chosen))
    return batch
