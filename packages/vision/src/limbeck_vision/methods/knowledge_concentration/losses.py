"""Sigmoid cross-entropy over all labels: of hard labels, and of the few probabilities that a specialist gives."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from limbeck_core.checks import check_finite, check_floating, check_ndim, check_target
from limbeck_core.errors import ShapeError, TargetError
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss


def specialist_loss(
    student_logits: Tensor, teacher_probabilities: Tensor, labels: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Sigmoid cross-entropy over all N labels against targets that are zero but for K of them.

    .. math:: L = -\sum_j \big[z_j \ln s(y_j) + (1 - z_j) \ln(1 - s(y_j))\big]
        = \sum_j \ln(1 + e^{y_j}) - \sum_{k=1}^{K} p_k \, y_{l_k}

    summed over labels and averaged over samples. The second form needs no dense target: K numbers a sample, not N.

    Args:
        student_logits: Raw scores of all labels, shape ``(B, N)``.
        teacher_probabilities: The kept probabilities of the sample's own specialist, in [0, 1], shape ``(B, K)``.
            Gradients never flow into it.
        labels: Which label each belongs to, shape ``(B, K)``, int64. A label that is repeated adds its probabilities;
            padding has probability 0.
        reduction: ``"none"`` gives one value a sample, shape ``(B,)``; ``"mean"`` and ``"sum"`` reduce those.

    Returns:
        Loss in nats, summed over labels (a mean over many labels would leave no gradient).

    Raises:
        ShapeError: if shapes do not fit.
        TargetError: if a label is outside of the N, or a probability outside of [0, 1].
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the logits or probabilities hold NaN or infinity (CPU), naming which.

    Reference:
        Gao et al., Knowledge Concentration: Learning 100K Object Classifiers in a Single CNN, arXiv:1711.07607, section
        on multi-teacher single-student distillation. No temperature, and hard labels play no part.
    """
    check_floating(student_logits, "student_logits")
    check_ndim(student_logits, "student_logits", "(B, N)", at_least=2, at_most=2)
    check_reduction(reduction)
    probabilities = teacher_probabilities.detach()
    if probabilities.ndim != 2 or probabilities.shape != labels.shape or len(labels) != len(student_logits):
        raise ShapeError(
            f"teacher_probabilities and labels must have one shape ({len(student_logits)}, K) to fit student_logits "
            f"{tuple(student_logits.shape)}, got {tuple(probabilities.shape)} and {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TargetError(f"labels must hold integer class indices, got {labels.dtype}")
    if labels.device.type == "cpu" and labels.numel() and not torch.compiler.is_compiling():
        if not 0 <= int(labels.min()) <= int(labels.max()) < student_logits.shape[1]:
            raise TargetError(f"labels must lie from 0 to {student_logits.shape[1] - 1}: check the order of verticals")
        if bool(((probabilities < 0) | (probabilities > 1)).any()):
            raise TargetError("teacher_probabilities must lie in [0, 1]: apply the sigmoid to the specialist's logits")
    scores = at_least_float32(student_logits)
    per_sample = softplus(scores).sum(1) - (probabilities.to(scores.dtype) * scores.gather(1, labels.long())).sum(1)
    loss = reduce_loss(per_sample, reduction)
    check_finite(loss, student_logits=student_logits, teacher_probabilities=probabilities)
    return loss


class SpecialistLoss(nn.Module):
    """Module twin of :func:`specialist_loss`.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_logits: Tensor, teacher_probabilities: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return specialist_loss(student_logits, teacher_probabilities, labels, reduction=self.reduction)


class SigmoidCrossEntropyLoss(nn.Module):
    """Task loss of specialists and of students without them: summed over labels, mean over samples.

    Reference:
        Gao et al., arXiv:1711.07607: the loss of the specialists.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compare logits ``(B, N)`` with class indices ``(B,)`` or multi-hot rows ``(B, N)``.

        Raises:
            ShapeError: if the shapes do not fit.
            TargetError: if a label is outside.
            NonFiniteError: if the logits hold NaN or infinity (CPU).
        """
        if target.ndim == 1:
            check_target(target, logits)
            return specialist_loss(logits, torch.ones_like(logits[:, :1]), target[:, None])
        if target.shape != logits.shape:
            raise ShapeError(f"multi-hot targets must have shape {tuple(logits.shape)}, got {tuple(target.shape)}")
        scores = at_least_float32(logits)
        loss = reduce_loss((softplus(scores) - target.to(scores.dtype) * scores).sum(1))
        check_finite(loss, logits=logits)
        return loss
