"""What an expert's tokens ask of the student's: the same direction, and for patches also the same size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate, smooth_l1_loss

from limbeck_core.checks import check_between, check_finite, check_floating, check_ndim
from limbeck_core.errors import ShapeError
from limbeck_core.functional import normalized_mse_loss, unit_vectors
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss


def token_alignment_loss(
    student_embeddings: Tensor, teacher_embeddings: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""One minus the cosine of a student's class token and an expert's (GPFM).

    .. math:: L = 1 - \cos(h(s), t)

    Half of :func:`limbeck_core.functional.normalized_mse_loss`.

    Args:
        student_embeddings: After the expert's head, shape ``(N, D)`` or ``(N, ..., D)``.
        teacher_embeddings: The expert's, same shape. Gradients never flow into it.
        reduction: ``"none"`` gives one value a token.

    Returns:
        Loss between 0 and 2.

    Raises:
        ShapeError: if shapes differ.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if embeddings hold NaN or infinity (CPU).

    Reference:
        Ma et al., Towards A Generalizable Pathology Foundation Model via Unified Knowledge Distillation,
        arXiv:2407.18449, expert knowledge distillation; the cosine as in the authors' training config.

    >>> import torch
    >>> token_alignment_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]]))
    tensor(1.)
    """
    return normalized_mse_loss(student_embeddings, teacher_embeddings, reduction=reduction) / 2


def patch_alignment_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    *,
    cosine_weight: float = 0.9,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Difference of a student's patch tokens from an expert's, in direction and in size (GPFM).

    .. math:: L = \lambda \, (1 - \overline{\cos}) + (1 - \lambda) \, \overline{\mathrm{smooth}_{L_1}}

    with means over patches, and over channels as well for the second part. An expert with another grid is resized,
    bicubic and in float32 or better.

    Args:
        student_features: Patch tokens after the expert's head, as a map ``(N, D, h, w)``.
        teacher_features: The expert's, ``(N, D, h', w')``. Gradients never flow into it.
        cosine_weight: Share :math:`\lambda` in [0, 1] of the direction. Paper's code: 0.9.
        reduction: ``"none"`` gives one value an image, shape ``(N,)``.

    Returns:
        Loss of 0 or more.

    Raises:
        ShapeError: if the numbers of images or channels differ.
        ValueError: if ``cosine_weight`` or ``reduction`` is out of range.
        NonFiniteError: if features hold NaN or infinity (CPU).

    Reference:
        Ma et al., arXiv:2407.18449, expert knowledge distillation; constants from the authors' code.

    >>> import torch
    >>> patch_alignment_loss(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 2, 2))
    tensor(0.)
    """
    for features, name in ((student_features, "student_features"), (teacher_features, "teacher_features")):
        check_ndim(features, name, "(N, D, h, w)", at_least=4, at_most=4)
        check_floating(features, name)
    if student_features.shape[:2] != teacher_features.shape[:2]:
        raise ShapeError(
            "student_features and teacher_features must have the same numbers of images and channels, got "
            f"{tuple(student_features.shape)} and {tuple(teacher_features.shape)}: give the student a head of the "
            "expert's width"
        )
    check_between(cosine_weight, "cosine_weight", 0.0, 1.0)
    check_reduction(reduction)
    student, teacher = student_features, teacher_features.detach()
    student = student.float() if student.dtype.itemsize < 4 else student
    teacher = teacher.to(student.dtype)
    if not student.numel():
        return reduce_loss(student.flatten(1).sum(1), reduction)
    if teacher.shape[2:] != student.shape[2:]:
        teacher = interpolate(teacher, student.shape[2:], mode="bicubic", align_corners=False)
    cosine = (unit_vectors(student.movedim(1, -1)) * unit_vectors(teacher.movedim(1, -1))).sum(-1)
    direction = 1 - cosine.mean((1, 2))
    size = smooth_l1_loss(student, teacher, reduction="none").mean((1, 2, 3))
    loss = reduce_loss(cosine_weight * direction + (1 - cosine_weight) * size, reduction)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


class TokenAlignmentLoss(nn.Module):
    """Module twin of :func:`token_alignment_loss`.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over tokens.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return token_alignment_loss(student_embeddings, teacher_embeddings, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


class PatchAlignmentLoss(nn.Module):
    """Module twin of :func:`patch_alignment_loss`.

    Args:
        cosine_weight: Share of the direction, in [0, 1].
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over images.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, *, cosine_weight: float = 0.9, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_between(cosine_weight, "cosine_weight", 0.0, 1.0)
        check_reduction(reduction)
        self.cosine_weight = cosine_weight
        self.reduction = reduction

    def forward(self, student_features: Tensor, teacher_features: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return patch_alignment_loss(
            student_features, teacher_features, cosine_weight=self.cosine_weight, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"cosine_weight={self.cosine_weight}, reduction={self.reduction!r}"
