"""What a model wants done to an image in [0, 1] before it sees it, and who does it.

A model carries its statistics as plain data in the attribute ``normalization`` (``None``: it was made for raw images)
and says with ``normalizes_input = True`` that it applies them itself. Teacher and student then share one batch, with
one random geometry, and each gets its own normalisation: inside :class:`~limbeck_core.distiller.Distiller` by
:class:`ImageCall`, elsewhere (plain Python, export) by wrapping the model in :class:`NormalizedModel`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from limbeck_core.build import build
from limbeck_core.calls import TensorCall
from limbeck_core.checks import check_floating, check_ndim, check_positive
from limbeck_core.errors import MatchError, ShapeError
from limbeck_core.tap import unwrap


class Normalization(NamedTuple):
    """Statistics of the images that a model was made for.

    Args:
        mean: Mean of each channel, of images in [0, 1].
        std: Standard deviation of each channel, above 0.
        input_size: Channels, height and width that the model was trained at; ``None`` where any size will do.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, int, int] | None = None


# How a model's statistics are given: as they are, as a mapping of their arguments (in a config), or none.
Statistics = Normalization | Mapping[str, Any] | None

# Statistics of the training images, as the benchmarks' recipes use them (for CIFAR-10 those of the PS-KD recipe).
CIFAR10_NORMALIZATION = Normalization((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), (3, 32, 32))
CIFAR100_NORMALIZATION = Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), (3, 32, 32))
IMAGENET_NORMALIZATION = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (3, 224, 224))


def as_normalization(value: Statistics) -> Normalization | None:
    """Return ``value`` as a checked :class:`Normalization`; a mapping holds its arguments, as in a config.

    Raises:
        ShapeError: if ``mean`` and ``std`` differ in length or are empty.
        ValueError: if a standard deviation is not above 0.
    """
    if value is None:
        return None
    fields = value._asdict() if isinstance(value, Normalization) else dict(value)
    mean, std, size = _floats(fields["mean"]), _floats(fields["std"]), fields.get("input_size")
    if len(mean) != len(std) or not mean:
        raise ShapeError(f"mean and std must have one number for each channel, got {mean} and {std}")
    for number in std:
        check_positive(number, "std")
    return Normalization(mean, std, None if size is None else tuple(size))


def _floats(numbers: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(number) for number in numbers)


def normalize(images: Tensor, normalization: Normalization | None) -> Tensor:
    """Subtract the mean and divide by the standard deviation of each channel.

    Args:
        images: Floating-point images in [0, 1], shape ``(N, C, H, W)``.
        normalization: Statistics; ``None`` returns the images as they are.

    Raises:
        ShapeError: if the images are integers, or have another number of axes or channels.

    >>> normalize(torch.full((1, 1, 2, 2), 0.75), Normalization((0.5,), (0.25,))).flatten().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    if normalization is None:
        return images
    mean, std = torch.tensor(normalization[:2], device=images.device).unsqueeze(-1).unsqueeze(-1)
    return _normalize(images, mean, std)


def _normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    check_floating(images, "images")
    check_ndim(images, "images", "(N, C, H, W)", at_least=4, at_most=4)
    if images.shape[1] != mean.shape[0]:
        raise ShapeError(
            f"images must have {mean.shape[0]} channels to be normalised with {mean.shape[0]} means, got shape "
            f"{tuple(images.shape)}: repeat a grey channel, or give the model the statistics of its own images"
        )
    return (images - mean.to(images.dtype)) / std.to(images.dtype)


class Normalize(nn.Module):
    """Module twin of :func:`normalize`. The statistics follow the module's device and stay out of its state dict."""

    mean: Tensor
    std: Tensor

    def __init__(self, normalization: Normalization | Mapping[str, Any]) -> None:
        super().__init__()
        checked = as_normalization(normalization)
        if checked is None:
            raise ValueError("normalization must hold mean and std, got None: leave the module out instead")
        self.register_buffer("mean", torch.tensor(checked.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(checked.std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images in [0, 1] of shape ``(N, C, H, W)``."""
        return _normalize(images, self.mean, self.std)

    def extra_repr(self) -> str:
        """Show the statistics in ``repr``."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


class NormalizedModel(nn.Module):
    """A model that takes raw images in [0, 1] and normalises them itself.

    Taps inside of it begin with ``model.``, and so do the names in its state dict. Load a checkpoint of the bare model
    before wrapping it.

    Args:
        model: The model, or a config of it.
        normalization: Statistics; by default the model's own attribute ``normalization``.

    Raises:
        MatchError: if neither the argument nor the model says how to normalise.
    """

    normalizes_input = True

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any],
        normalization: Statistics = None,
    ) -> None:
        super().__init__()
        built: nn.Module = build(model)
        statistics = as_normalization(normalization) or normalization_of(built)
        self.normalization = statistics
        self.normalize = nn.Identity() if statistics is None else Normalize(statistics)
        self.model = built

    def forward(self, images: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Normalise ``images`` and pass everything else through."""
        return self.model(self.normalize(images), *args, **kwargs)


class ImageCall(TensorCall):
    """Call image models on one batch of images in [0, 1], each with its own normalisation.

    Give it to a :class:`~limbeck_core.distiller.Distiller` as ``call``: names of taps and of weights stay those of the
    bare model, which a wrapper would change. A model that normalises its input itself is left to do so.
    """

    normalizes_input = True

    def capture(self, model: nn.Module, batch: Mapping[str, Any], view: str) -> Any:
        """Run the model on its own normalisation of the view.

        Raises:
            MatchError: if the model does not say how its input is normalised, or the batch lacks the view.
            ShapeError: if the model refuses images of this size, as vision transformers do.
        """
        statistics = None if _normalizes_itself(model) else normalization_of(model)
        images = batch.get(view)
        if statistics is not None and isinstance(images, Tensor):
            batch = {**batch, view: normalize(images, statistics)}
        try:
            return super().capture(model, batch, view)  # which explains a missing view
        except AssertionError as error:  # how timm and torchvision refuse a size
            got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise ShapeError(
                f"{type(unwrap(model)).__name__} does not take images of shape {got}: {error}. Resize or crop them in "
                "the data set, or build the model for their size (timm: img_size=, with a patch_size that divides it)"
            ) from error


def normalization_of(model: nn.Module) -> Normalization | None:
    """Return a model's statistics, looking through teachers and other wrappers that hold it as ``model``.

    Raises:
        MatchError: if no model inside has the attribute ``normalization``.
    """
    for inner in _layers_of(model):
        if hasattr(inner, "normalization"):
            return as_normalization(inner.normalization)
    raise MatchError(
        f"{type(model).__name__} does not say how its input is normalised: set its attribute 'normalization' to "
        "Normalization(mean, std), or to None if it takes raw images in [0, 1]. Several peers are each wrapped in "
        "NormalizedModel and called by TensorCall"
    )


def _normalizes_itself(model: nn.Module) -> bool:
    return any(getattr(inner, "normalizes_input", False) for inner in _layers_of(model))


def _layers_of(model: nn.Module) -> Iterator[Any]:
    inner: Any = model
    while isinstance(inner, nn.Module):
        inner = unwrap(inner)
        yield inner
        inner = getattr(inner, "model", None)
