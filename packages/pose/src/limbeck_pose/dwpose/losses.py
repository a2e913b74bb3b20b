"""DWPose's losses on SimCC heads.

Yang et al., Effective Whole-body Pose Estimation with Two-stages Distillation, arXiv:2307.15880. The feature loss of
the first stage is core's :class:`limbeck_core.losses.SquaredDistanceLoss` behind a 1x1 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from limbeck_core.checks import check_finite, check_ndim, check_positive, check_same_shape
from limbeck_core.errors import ShapeError
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss
from limbeck_pose.dwpose.divergence import sharpened_divergence

SHARPNESS = 10.0


def simcc_task_loss(
    scores: Tensor, labels: Tensor, weight: Tensor, *, sharpness: float = SHARPNESS, reduction: Reduction = "mean"
) -> Tensor:
    r"""Divergence from sharpened labels to sharpened scores along one axis, over labelled key points.

    .. math:: L_n = \frac{1}{K} \sum_k w_{nk} \frac{1}{B} \sum_b p_b \,(\log p_b - \log q_b), \quad
       p = \sigma(\beta\, \text{label}), \; q = \sigma(\beta\, \text{score})

    The mean over bins and the division by K are the reference's. It sums over the batch, so that its size grows with
    the batch while the distillation loss, a mean, does not; the recipe holds for 64 people a process. With ``"mean"``
    (limbeck's default) and ``task_weight=64`` the two keep the recipe's ratio at any batch size.

    Args:
        scores: Raw scores along the axis, ``(N, K, B)``.
        labels: Labels along the axis, ``(N, K, B)``.
        weight: 1 for key points with a label, else 0, ``(N, K)``.
        sharpness: Factor :math:`\beta > 0` on both before the softmax.
        reduction: ``"none"`` gives ``(N,)``; ``"mean"`` and ``"sum"`` reduce over samples.

    Returns:
        Loss in nats a bin. Zero, with a gradient path, where nothing is labelled.

    Raises:
        ShapeError: if the shapes do not fit.
        ValueError: if ``sharpness <= 0`` or ``reduction`` is unknown.
        NonFiniteError: if the scores hold NaN or infinity (CPU).

    Reference:
        Eq. 2 of the paper; RTMPose, arXiv:2303.07399, section 3.3.
    """
    _check(scores, labels, "scores", "labels", sharpness, reduction)
    _check_weight(weight, scores, "weight")
    per_keypoint = sharpened_divergence(scores, labels, sharpness) / scores.shape[-1]
    loss = reduce_loss((per_keypoint * weight).sum(1) / scores.shape[1], reduction)
    check_finite(loss, scores=scores, labels=labels)
    return loss


def simcc_divergence_loss(
    student_scores: Tensor,
    teacher_scores: Tensor,
    *,
    mask: Tensor | None = None,
    sharpness: float = SHARPNESS,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Divergence from the teacher's to the student's positions along one axis, over all key points.

    .. math:: L = \frac{1}{N K} \sum_{n, k} KL\big(\sigma(\beta\, z_t) \,\|\, \sigma(\beta\, z_s)\big)

    Key points without a label are taught too: that is the method's point, and where its gain comes from. The paper
    writes the cross-entropy without the factor 1/K; the code's divergence has it, with the same gradient otherwise.

    Args:
        student_scores: Raw scores along the axis, ``(N, K, B)``.
        teacher_scores: Same shape. Gradients never flow into it.
        mask: Key points that count, ``(N, K)``; boolean or weights. Default: all of them. The sum is divided by K all
            the same.
        sharpness: Factor :math:`\beta > 0` on both before the softmax; there is no factor that undoes it.
        reduction: ``"none"`` gives ``(N,)``; ``"mean"`` and ``"sum"`` reduce over samples.

    Returns:
        Loss in nats.

    Raises:
        ShapeError: if the shapes do not fit.
        ValueError: if ``sharpness <= 0`` or ``reduction`` is unknown.
        NonFiniteError: if the scores hold NaN or infinity (CPU).

    Reference:
        Eq. 3 of the paper, and its released code.
    """
    _check(student_scores, teacher_scores, "student_scores", "teacher_scores", sharpness, reduction)
    per_keypoint = sharpened_divergence(student_scores, teacher_scores, sharpness)
    if mask is not None:
        _check_weight(mask, student_scores, "mask")
        per_keypoint = per_keypoint * mask
    loss = reduce_loss(per_keypoint.sum(1) / student_scores.shape[1], reduction)
    check_finite(loss, student_scores=student_scores, teacher_scores=teacher_scores)
    return loss


class SimCCTaskLoss(nn.Module):
    """Both axes of :func:`simcc_task_loss`, as a task loss on a head's pair of scores.

    Args:
        sharpness: Factor on scores and labels before the softmax.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``sharpness <= 0`` or ``reduction`` is unknown.
    """

    def __init__(self, *, sharpness: float = SHARPNESS, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive(sharpness, "sharpness")
        check_reduction(reduction)
        self.sharpness, self.reduction = sharpness, reduction

    def forward(self, scores: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Compute the loss.

        Args:
            scores: Raw scores along x and y.
            targets: Labels along x, labels along y, and weights, as
                :class:`~limbeck_pose.simcc.SimCCTargets` orders them.

        Raises:
            ShapeError: if there are not two scores and three targets, or a shape does not fit.
        """
        if len(scores) != 2 or len(targets) != 3:
            raise ShapeError(
                f"expected scores (x, y) and targets (x, y, weight), got {len(scores)} and {len(targets)} tensors"
            )
        *labels, weight = targets
        x, y = (
            simcc_task_loss(s, label, weight, sharpness=self.sharpness, reduction=self.reduction)
            for s, label in zip(scores, labels, strict=True)
        )
        return x + y

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"sharpness={self.sharpness}, reduction={self.reduction!r}"


class SimCCDivergenceLoss(nn.Module):
    """Module twin of :func:`simcc_divergence_loss`: one axis; a match for each of ``head.cls_x`` and ``head.cls_y``.

    Args:
        sharpness: Factor on both scores before the softmax.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``sharpness <= 0`` or ``reduction`` is unknown.
    """

    def __init__(self, *, sharpness: float = SHARPNESS, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive(sharpness, "sharpness")
        check_reduction(reduction)
        self.sharpness, self.reduction = sharpness, reduction

    def forward(self, student_scores: Tensor, teacher_scores: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return simcc_divergence_loss(
            student_scores, teacher_scores, mask=mask, sharpness=self.sharpness, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"sharpness={self.sharpness}, reduction={self.reduction!r}"


def _check(first: Tensor, second: Tensor, first_name: str, second_name: str, sharpness: float, reduction: str) -> None:
    check_ndim(first, first_name, "(N, K, bins)", at_least=3, at_most=3)
    if second.ndim == 3 and first.shape[0] == second.shape[0] and first.shape[1] != second.shape[1]:
        raise ShapeError(
            f"{first_name} are of {first.shape[1]} key points, {second_name} of {second.shape[1]}: give models, data "
            "set and codec one layout, such as keypoints=... of the model and layout=... of the data set"
        )
    hint = "teacher and student need one input size and one number of bins a pixel"
    check_same_shape(first, second, first_name, second_name, hint)
    check_positive(sharpness, "sharpness")
    check_reduction(reduction)


def _check_weight(weight: Tensor, scores: Tensor, name: str) -> None:
    if weight.shape != scores.shape[:2]:
        raise ShapeError(
            f"{name} must have one value a key point, shape {tuple(scores.shape[:2])}, got {tuple(weight.shape)}"
        )
