"""From what a tap gives to tokens: of a transformer as they are, of a convolutional map by cutting it into patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, unfold

from limbeck_core.checks import check_floating, check_ndim
from limbeck_core.errors import ShapeError
from limbeck_core.functional.features import pool_to_smaller


def as_tokens(features: Tensor, name: str = "features", *, patch_size: int = 1, prefix_tokens: int = 0) -> Tensor:
    """Return the patch tokens of a batch, in row order.

    Args:
        features: Tokens ``(N, prefix_tokens + P, D)`` of a transformer, or a map ``(N, C, H, W)``.
        name: How errors call it.
        patch_size: Side of the patches that a map is cut into; the values of a patch become one token. A map that does
            not divide is average-pooled to the next smaller multiple. Transformers' tokens are patches already.
        prefix_tokens: Tokens in front of a transformer's that are no patches (class token, registers).

    Returns:
        Shape ``(N, P, D)``, for a map with ``D = C * patch_size ** 2``.

    Raises:
        ShapeError: if the shape is neither, there is no patch, or the map is smaller than one.

    >>> as_tokens(torch.zeros(2, 3, 5, 4), patch_size=2).shape
    torch.Size([2, 4, 12])
    """
    check_floating(features, name)
    if features.ndim == 3:
        patches = features[:, prefix_tokens:]
        if not patches.shape[1]:
            raise ShapeError(
                f"{name} of shape {tuple(features.shape)} holds no patch token after {prefix_tokens} prefix tokens: "
                "tap a block of the transformer, before its tokens are pooled"
            )
        return patches
    if features.ndim != 4:
        raise ShapeError(
            f"{name} must be tokens (N, P, D) or a map (N, C, H, W), got {tuple(features.shape)}: tap before the "
            "pooling"
        )
    height, width = (side // patch_size * patch_size for side in features.shape[2:])
    if not height or not width:
        raise ShapeError(
            f"{name} of shape {tuple(features.shape)} is smaller than a patch of {patch_size} x {patch_size}: lower "
            "patch_size, or tap an earlier stage"
        )
    if (height, width) != features.shape[2:]:
        features = adaptive_avg_pool2d(features, (height, width))
    if patch_size == 1:
        return features.flatten(2).mT
    return unfold(features, patch_size, stride=patch_size).mT


def token_pair(
    student_features: Tensor,
    teacher_features: Tensor,
    *,
    patch_size: int = 1,
    student_prefix_tokens: int = 0,
    teacher_prefix_tokens: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return the tokens of both at the same positions.

    If their numbers differ, both are taken as grids (transformers' as square ones), the finer one is average-pooled to
    the coarser, and both are cut into patches.

    Args:
        student_features: Tokens or a map, see :func:`as_tokens`.
        teacher_features: Tokens or a map.
        patch_size: Side of the patches that maps are cut into.
        student_prefix_tokens: Tokens of the student that are no patches.
        teacher_prefix_tokens: Tokens of the teacher that are no patches.

    Returns:
        Shapes ``(N, P, D_s)`` and ``(N, P, D_t)``.

    Raises:
        ShapeError: if the batches differ, or the numbers of tokens differ and one side has no square grid.
    """
    for features, name in ((student_features, "student_features"), (teacher_features, "teacher_features")):
        check_ndim(features, name, "(N, P, D) or (N, C, H, W)", at_least=3, at_most=4)
    sides = (
        (student_features, "student_features", student_prefix_tokens),
        (teacher_features, "teacher_features", teacher_prefix_tokens),
    )
    first, second = (
        as_tokens(features, name, patch_size=patch_size, prefix_tokens=prefix) for features, name, prefix in sides
    )
    if first.shape[1] != second.shape[1]:
        student, teacher = (_as_map(features, name, prefix) for features, name, prefix in sides)
        if student is not None and teacher is not None:
            student, teacher = pool_to_smaller(student, teacher)
            first = as_tokens(student, "student_features", patch_size=patch_size)
            second = as_tokens(teacher, "teacher_features", patch_size=patch_size)
    if first.shape[:2] != second.shape[:2]:
        raise ShapeError(
            f"student_features {tuple(student_features.shape)} and teacher_features {tuple(teacher_features.shape)} "
            f"give {tuple(first.shape[:2])} and {tuple(second.shape[:2])} images and tokens, which must be the same: "
            "set prefix_tokens to the number of class and register tokens, and feed both models the same images"
        )
    return first, second


def _as_map(features: Tensor, name: str, prefix_tokens: int) -> Tensor | None:
    """The grid of the tokens as a map; ``None`` if they form no square."""
    if features.ndim == 4:
        return features
    patches = as_tokens(features, name, prefix_tokens=prefix_tokens)
    side = math.isqrt(patches.shape[1])
    return patches.mT.reshape(len(patches), -1, side, side) if side * side == patches.shape[1] else None


def sample_tokens(student_tokens: Tensor, teacher_tokens: Tensor, per_image: int | None) -> tuple[Tensor, Tensor]:
    """Draw tokens of every image, the same positions for both, and pool those of all images.

    Args:
        student_tokens: Shape ``(N, P, D_s)``.
        teacher_tokens: Shape ``(N, P, D_t)``.
        per_image: Tokens drawn of each image, without repetition, from PyTorch's global generator; ``None`` or P and
            more take all.

    Returns:
        Shapes ``(N * R, D_s)`` and ``(N * R, D_t)``.
    """
    count, positions = student_tokens.shape[:2]
    if per_image is None or per_image >= positions:
        return student_tokens.flatten(0, 1), teacher_tokens.flatten(0, 1)
    chosen = torch.rand(count, positions, device=student_tokens.device).argsort(1)[:, :per_image]
    drawn = [
        tokens.gather(1, chosen.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])).flatten(0, 1)
        for tokens in (student_tokens, teacher_tokens)
    ]
    return drawn[0], drawn[1]
