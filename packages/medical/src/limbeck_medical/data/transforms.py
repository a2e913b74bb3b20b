"""The usual chains of MONAI's transforms, on the fields ``inputs`` and ``targets`` of a sample.

A chain is a list of transforms. Deterministic ones come first and can be cached; random ones draw from generators that
are seeded for each sample. Any other list of MONAI's dictionary transforms with these two keys does as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from monai.data import MetaTensor
from monai.data.image_reader import ImageReader, PILReader
from monai.transforms import (
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    MapLabelValued,
    NormalizeIntensityd,
    Orientationd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandRotate90d,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSpatialCropd,
    ScaleIntensityd,
    ScaleIntensityRanged,
    Spacingd,
    SpatialPadd,
    Transform,
)

from limbeck_core.errors import DataError

BOTH = ("inputs", "targets")
Intensity = Literal["zscore", "nonzero_zscore", "unit", "none"]
AFFINE_TOLERANCE = 1e-2  # millimetres: NIfTI keeps affines in single precision, some writers round more


class SameGrid(Transform):
    """Refuse a label map that lies elsewhere than its image, before anything is resampled.

    Args:
        channels: That an image must have; ``None`` takes any number.
    """

    def __init__(self, channels: int | None = None) -> None:
        self.channels = channels

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the sample as it is.

        Raises:
            DataError: if shape or affine of the two differ, or the channels are others.
        """
        sample = dict(data)
        image, labels = sample["inputs"], sample.get("targets")
        if self.channels is not None and image.shape[0] != self.channels:
            raise DataError(
                f"the image has {image.shape[0]} channels of {tuple(image.shape[1:])} voxels, expected "
                f"{self.channels}: a file of four axes holds one volume for each entry of the last; write the one that "
                "is meant to a file of its own, or set channels and the network's in_channels"
            )
        if labels is None:
            return sample
        if labels.shape[0] != 1 or labels.shape[1:] != image.shape[1:]:
            raise DataError(
                f"the label map has shape {tuple(labels.shape)} and the image {tuple(image.shape)}: expected one "
                "channel of class numbers on the image's grid"
            )
        if isinstance(image, MetaTensor) and isinstance(labels, MetaTensor):
            apart = float((image.affine.double() - labels.affine.double()).abs().max())
            if apart > AFFINE_TOLERANCE:
                raise DataError(
                    f"label map and image lie differently in space, their affines differ by up to {apart:.3g} mm: "
                    "write the label map with the geometry of its image, or resample it there"
                )
        return sample


def volume_preprocessing(
    *,
    spacing: Sequence[float] | None = (1.0, 1.0, 1.0),
    orientation: str | None = "RAS",
    intensity: Intensity | Sequence[float] = "zscore",
    label_values: Sequence[int] | None = None,
    channels: int | None = None,
) -> list[Any]:
    """Load volumes, turn them to one orientation and spacing, and scale their intensities.

    Args:
        spacing: Voxel size in millimetres after resampling (images linearly, labels by nearest neighbour); ``None``
            keeps each volume's own.
        orientation: Axis codes, ``"RAS"`` for right, anterior, superior; ``None`` keeps each volume's own.
        intensity: ``"zscore"``: mean 0 and standard deviation 1 of each channel of a volume; ``"nonzero_zscore"``:
            the same over voxels other than 0; ``"unit"``: [0, 1] from minimum to maximum; ``"none"``; or two numbers,
            a window of CT for example, which become 0 and 1, clipped.
        label_values: Values in the label files in the order of the classes, if they are not 0, 1, 2, ...
        channels: How many an image has: files, or entries of a fourth axis. Others are refused; ``None`` takes any.

    Raises:
        ValueError: if ``intensity`` is none of these; when a case is loaded:
        DataError: if image and label lie on different grids or differently in space, or the channels are others.
    """
    chain = [*_load(label_values), SameGrid(channels)]
    if orientation is not None:
        chain.append(Orientationd(BOTH, axcodes=orientation, labels=None, allow_missing_keys=True))
    if spacing is not None:
        chain.append(Spacingd(BOTH, pixdim=tuple(spacing), mode=("bilinear", "nearest"), allow_missing_keys=True))
    return [*chain, *_scale(intensity)]


def picture_preprocessing(
    *, intensity: Intensity | Sequence[float] = "unit", label_values: Sequence[int] | None = None
) -> list[Any]:
    """Load pictures and masks (PNG, TIFF) and scale their intensities.

    Args:
        intensity: As in :func:`volume_preprocessing`.
        label_values: Values in the mask files in the order of the classes: ``(0, 255)`` for the usual binary masks.

    Raises:
        ValueError: if ``intensity`` is unknown.
    """
    return [*_load(label_values, reader=PILReader), *_scale(intensity)]


def random_crops(
    size: Sequence[int],
    *,
    positive: float = 1.0,
    negative: float = 1.0,
    flips: float = 0.5,
    rotations: float = 0.0,
    shift: float = 0.0,
    scale: float = 0.0,
) -> list[Any]:
    """Cut out one random crop, flip it and change its intensities: for training, after a preprocessing chain.

    Args:
        size: Sides of the crop in voxels. Smaller volumes are padded first, with their edge; their labels with 0.
        positive: Weight of crops around a voxel of a structure.
        negative: Weight of crops around one of the background. With both at 0 crops lie anywhere.
        flips: Probability of a flip along each axis.
        rotations: Probability of a turn by quarters in the plane of the first two axes.
        shift: Largest shift of intensities, up and down, for half of the crops.
        scale: Largest relative change of intensities, for half of the crops.

    Raises:
        ValueError: if a weight or probability is out of range.
    """
    size = tuple(size)
    if min(positive, negative, shift, scale) < 0 or not (0 <= flips <= 1 and 0 <= rotations <= 1):
        raise ValueError(
            "positive, negative, shift and scale must be 0 or more, flips and rotations probabilities, got "
            f"{positive}, {negative}, {shift}, {scale}, {flips} and {rotations}"
        )
    chain: list[Any] = [
        SpatialPadd(("inputs",), spatial_size=size, mode="edge"),
        SpatialPadd(("targets",), spatial_size=size, mode="constant", allow_missing_keys=True),
    ]
    if positive or negative:
        chain.append(RandCropByPosNegLabeld(BOTH, "targets", size, pos=positive, neg=negative, num_samples=1))
    else:
        chain.append(RandSpatialCropd(BOTH, size, random_size=False, allow_missing_keys=True))
    if flips:
        chain += [RandFlipd(BOTH, prob=flips, spatial_axis=axis, allow_missing_keys=True) for axis in range(len(size))]
    if rotations:
        chain.append(RandRotate90d(BOTH, prob=rotations, spatial_axes=(0, 1), allow_missing_keys=True))
    if shift:
        chain.append(RandShiftIntensityd(("inputs",), offsets=shift, prob=0.5))
    if scale:
        chain.append(RandScaleIntensityd(("inputs",), factors=scale, prob=0.5))
    return chain


def _load(label_values: Sequence[int] | None, reader: type[ImageReader] | None = None) -> list[Any]:
    chain: list[Any] = [
        LoadImaged(BOTH, reader=reader, image_only=True, allow_missing_keys=True),
        EnsureChannelFirstd(BOTH, allow_missing_keys=True),
        EnsureTyped(BOTH, allow_missing_keys=True),
    ]
    if label_values is not None:
        indices = list(range(len(label_values)))
        chain.append(MapLabelValued(("targets",), list(label_values), indices, allow_missing_keys=True))
    return chain


def _scale(intensity: Intensity | Sequence[float]) -> list[Any]:
    if not isinstance(intensity, str):
        low, high = intensity
        return [ScaleIntensityRanged(("inputs",), a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True)]
    if intensity not in get_args(Intensity):
        raise ValueError(
            f"intensity must be one of {', '.join(get_args(Intensity))}, or a window of two numbers, got {intensity!r}"
        )
    if intensity == "unit":
        return [ScaleIntensityd(("inputs",), minv=0.0, maxv=1.0)]
    if intensity == "none":
        return []
    return [NormalizeIntensityd(("inputs",), nonzero=intensity == "nonzero_zscore", channel_wise=True)]
