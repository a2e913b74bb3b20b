"""Mixup and CutMix of whole batches, of torchvision's transforms, for batches that are mappings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from limbeck_core.checks import check_non_negative
from limbeck_core.errors import DataError, ShapeError, TargetError


def mix_batch(
    batch: Mapping[str, Any],
    *,
    num_classes: int,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    views: Sequence[str] = ("inputs",),
) -> dict[str, Any]:
    """Mix each image with its predecessor in the batch, and the labels alike.

    Args:
        batch: Mapping with images ``(N, C, H, W)`` and ``targets``: labels ``(N,)`` or probabilities ``(N, classes)``.
        num_classes: Number of classes.
        mixup: Parameter of the beta distribution that the weight of a sum of two images is drawn from; 0 is off.
        cutmix: Parameter of the beta distribution that the area of a pasted rectangle is drawn from; 0 is off. With
            both on, each batch gets one of the two, with equal chances.
        views: Names of the images in the batch, all mixed alike.

    Returns:
        A copy of the batch with mixed images and ``targets`` as probabilities ``(N, classes)``. ``mix_weight`` ``(N,)``
        is the share of the sample itself and ``mix_ids`` ``(N,)`` the ids of the others (where the batch has ``ids``),
        for whoever mixes something else alike, such as remembered predictions.

    Raises:
        ValueError: if a parameter is negative or both are 0.
        DataError: if the batch lacks a view or ``targets``.
        ShapeError: if the views are no batches of images.
        TargetError: if labels lie outside the classes.

    Reference:
        Zhang et al., mixup, arXiv:1710.09412; Yun et al., CutMix, arXiv:1905.04899.
    """
    check_non_negative(mixup, "mixup")
    check_non_negative(cutmix, "cutmix")
    if not mixup and not cutmix:
        raise ValueError("mixup and cutmix are both 0: leave the mixing out, or turn one of them on")
    missing = [name for name in (*views, "targets") if name not in batch]
    if missing:
        raise DataError(f"the batch to mix has no {missing[0]!r}: it has {', '.join(batch)}")
    labels = _probabilities(batch["targets"], num_classes)
    images = {view: batch[view] for view in views}
    for view, value in images.items():
        if not isinstance(value, Tensor) or value.ndim != 4 or len(value) != len(labels):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ShapeError(f"{view} must have shape ({len(labels)}, C, H, W) to be mixed, got {got}")
    use_mixup = bool(mixup) and (not cutmix or float(torch.rand(())) < 0.5)
    transform = v2.MixUp(alpha=mixup) if use_mixup else v2.CutMix(alpha=cutmix)
    # mixing the identity shows what share every sample got of every other
    shares = torch.eye(len(labels), dtype=labels.dtype, device=labels.device)
    mixed, shares = transform({view: tv_tensors.Image(value) for view, value in images.items()}, shares)
    result = {**batch, **{view: value.as_subclass(Tensor) for view, value in mixed.items()}}
    result["targets"] = shares @ labels
    result["mix_weight"] = shares.diagonal().clone()
    if "ids" in batch:
        result["mix_ids"] = batch["ids"].roll(1, 0)
    return result


def mix_collate(
    samples: Sequence[Any],
    *,
    num_classes: int,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    views: Sequence[str] = ("inputs",),
) -> dict[str, Any]:
    """Stack samples to a batch and mix it: the ``collate_fn`` of a data loader.

    Args:
        samples: Mappings, as the data sets here give them.
        num_classes: See :func:`mix_batch`.
        mixup: See :func:`mix_batch`.
        cutmix: See :func:`mix_batch`.
        views: See :func:`mix_batch`.
    """
    batch = default_collate(list(samples))
    return mix_batch(batch, num_classes=num_classes, mixup=mixup, cutmix=cutmix, views=views)


def _probabilities(targets: Tensor, num_classes: int) -> Tensor:
    if targets.is_floating_point():
        if targets.ndim != 2 or targets.shape[1] != num_classes:
            raise ShapeError(f"targets must be probabilities of shape (N, {num_classes}), got {tuple(targets.shape)}")
        return targets
    if targets.ndim != 1:
        raise ShapeError(f"targets must be labels of shape (N,), got {tuple(targets.shape)}")
    outside = targets[(targets < 0) | (targets >= num_classes)]
    if len(outside):
        raise TargetError(f"targets must lie between 0 and {num_classes - 1}, got {int(outside[0])}")
    return one_hot(targets, num_classes).float()
