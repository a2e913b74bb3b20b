"""Contrastive denoising: true boxes with noise become extra queries whose answers are known.

Reference: Zhang et al., DINO: DETR with Improved DeNoising Anchor Boxes, arXiv:2203.03605, section 3.3, with the
numbers of D-FINE (Peng et al., arXiv:2410.13842).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from limbeck_core.errors import ShapeError, TargetError
from limbeck_detection.boxes import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh
from limbeck_detection.dfine.decoder import inverse_sigmoid

Targets = Sequence[Mapping[str, Tensor]]


class DenoisingNoise(NamedTuple):
    """Random numbers of one batch, for D slots an image.

    Args:
        label: Uniform in [0, 1), shape ``(B, D)``; a label is replaced where this is below half the noise ratio.
        new_label: Labels to replace with, int64, shape ``(B, D)``.
        sign: -1 or 1 for each edge, shape ``(B, D, 4)``.
        part: Uniform in [0, 1), shape ``(B, D, 4)``: how far an edge moves, in halves of width or height. Negatives
            move by one half more.
    """

    label: Tensor
    new_label: Tensor
    sign: Tensor
    part: Tensor


class Denoising(NamedTuple):
    """Denoising queries of one batch: groups one after another, in each all positives and then all negatives.

    Args:
        labels: Noisy labels, int64, shape ``(B, D)``; the number of classes stands for an empty slot.
        box_logits: Noisy boxes before the sigmoid, shape ``(B, D, 4)``.
        blocked: Which query (row) may not see which (column), boolean, shape ``(D + Q, D + Q)``: ordinary queries do
            not see denoising ones, and groups do not see one another.
        meta: ``dn_positive_idx`` (for each image the slots of its positives, group after group in the order of its
            targets), ``dn_num_group`` and ``dn_num_split`` (``[D, Q]``).
    """

    labels: Tensor
    box_logits: Tensor
    blocked: Tensor
    meta: dict[str, Any]


def _check_targets(targets: Targets, num_classes: int) -> None:
    for i, target in enumerate(targets):
        if "labels" not in target or "boxes" not in target:
            raise TargetError(f"targets[{i}] must hold 'labels' and 'boxes', it has: {', '.join(target) or 'nothing'}")
        labels, boxes = target["labels"], target["boxes"]
        if labels.ndim != 1 or boxes.shape != (*labels.shape, 4):
            raise ShapeError(
                f"targets[{i}] must hold labels (n,) and boxes (n, 4), got {tuple(labels.shape)} and "
                f"{tuple(boxes.shape)}"
            )
        if labels.is_floating_point():
            raise TargetError(f"targets[{i}]['labels'] must be class indices, got {labels.dtype}")
        if labels.device.type == "cpu" and labels.numel():
            low, high = (int(v) for v in labels.aminmax())
            if low < 0 or high >= num_classes:
                raise TargetError(
                    f"targets[{i}]['labels'] must lie in [0, {num_classes}), got {low if low < 0 else high}"
                )


def denoising_groups(num_denoising: int, most: int) -> int:
    """How many groups fit: ``num_denoising`` over the largest number of targets in an image, one at least."""
    return max(num_denoising // most, 1)


def draw_noise(batch: int, slots: int, num_classes: int, device: torch.device, dtype: torch.dtype) -> DenoisingNoise:
    """Draw the random numbers for ``slots`` slots in each of ``batch`` images from torch's generator."""
    return DenoisingNoise(
        torch.rand(batch, slots, device=device),
        torch.randint(num_classes, (batch, slots), device=device),
        torch.randint(2, (batch, slots, 4), device=device).to(dtype) * 2 - 1,
        torch.rand(batch, slots, 4, device=device, dtype=dtype),
    )


def denoising_queries(
    targets: Targets,
    *,
    num_classes: int,
    num_queries: int,
    num_denoising: int = 100,
    label_noise_ratio: float = 0.5,
    box_noise_scale: float = 1.0,
    noise: DenoisingNoise | None = None,
) -> Denoising | None:
    """Make the denoising queries of a batch.

    Args:
        targets: One mapping an image: ``labels`` int64 ``(n,)`` and ``boxes`` ``(n, 4)``, ``(cx, cy, w, h)`` as
            fractions of the image.
        num_classes: C.
        num_queries: Ordinary queries, Q.
        num_denoising: Number of target slots over all groups; there are as many positives as that and as many
            negatives, or twice the largest number of targets where that is more.
        label_noise_ratio: Half of it is the probability that a label is replaced by one drawn from all classes.
        box_noise_scale: Multiplies the shift of every edge.
        noise: Random numbers; ``None`` draws them.

    Returns: The queries, or ``None`` if no image has a target.

    Raises:
        TargetError: if a target lacks its labels or boxes, or a label is no class.
        ShapeError: if labels and boxes do not fit together.
    """
    _check_targets(targets, num_classes)
    counts = [len(target["labels"]) for target in targets]
    most = max(counts, default=0)
    if most == 0:
        return None
    device, dtype = targets[0]["boxes"].device, targets[0]["boxes"].dtype
    groups = denoising_groups(num_denoising, most)
    slots = 2 * most * groups
    batch = len(targets)
    labels = torch.full((batch, most), num_classes, device=device, dtype=torch.int64)
    boxes = torch.zeros(batch, most, 4, device=device, dtype=dtype)
    for i, (target, count) in enumerate(zip(targets, counts, strict=True)):
        labels[i, :count] = target["labels"]
        boxes[i, :count] = target["boxes"]
    filled = labels.ne(num_classes).repeat(1, 2 * groups)
    labels, boxes = labels.repeat(1, 2 * groups), boxes.repeat(1, 2 * groups, 1)
    place = torch.arange(slots, device=device)
    negative = place % (2 * most) >= most
    noise = noise if noise is not None else draw_noise(batch, slots, num_classes, device, dtype)

    replaced = filled & (noise.label < 0.5 * label_noise_ratio)
    labels = torch.where(replaced, noise.new_label, labels)
    half = 0.5 * box_noise_scale * boxes[..., 2:].repeat(1, 1, 2)
    shift = noise.sign * (noise.part + negative[:, None].to(dtype)) * half
    moved = (box_cxcywh_to_xyxy(boxes) + shift).clamp(0.0, 1.0)
    noisy = box_xyxy_to_cxcywh(moved).abs()  # a negative's edges may have crossed

    group = place // (2 * most)
    blocked = torch.zeros(slots + num_queries, slots + num_queries, device=device, dtype=torch.bool)
    blocked[:slots, :slots] = group[:, None] != group[None]
    blocked[slots:, :slots] = True
    starts = torch.arange(groups, device=device)[:, None] * 2 * most
    positive = tuple((starts + torch.arange(count, device=device)).flatten() for count in counts)
    meta = {"dn_positive_idx": positive, "dn_num_group": groups, "dn_num_split": [slots, num_queries]}
    return Denoising(labels, inverse_sigmoid(noisy), blocked, meta)
