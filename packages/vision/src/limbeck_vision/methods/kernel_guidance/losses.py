"""The squared error of probabilities that stands for the kernel method's loss in networks, and its penalty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from limbeck_core import Distiller
from limbeck_core.checks import check_finite, check_logits, check_ndim, check_non_negative, check_target
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss


def probability_mse_loss(student_logits: Tensor, teacher_logits: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Mean squared difference of two softmax distributions.

    .. math:: L = \frac1C \sum_c \big(\sigma(z_s)_c - \sigma(z_t)_c\big)^2

    Args:
        student_logits: Raw scores, shape ``(N, C)``.
        teacher_logits: Same shape. Gradients never flow into it.
        reduction: ``"none"`` gives one value a sample, shape ``(N,)``; ``"mean"`` and ``"sum"`` reduce those.

    Returns:
        Loss in [0, 2 / C], squared probabilities.

    Raises:
        ShapeError: if shapes or devices differ, or there are fewer than two classes.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the logits hold NaN or infinity (CPU).

    Reference:
        Borup and Andersen, arXiv:2102.13088, section 5: the loss of the deep networks.
    """
    check_logits(student_logits, teacher_logits)
    check_ndim(student_logits, "student_logits", "(N, C)", at_least=2, at_most=2)
    check_reduction(reduction)
    teacher = at_least_float32(teacher_logits.detach()).softmax(1)
    student = at_least_float32(student_logits).softmax(1)
    loss = reduce_loss((student - teacher).square().mean(1), reduction)
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss


class ProbabilityMSELoss(nn.Module):
    """Module twin of :func:`probability_mse_loss`.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return probability_mse_loss(student_logits, teacher_logits, reduction=self.reduction)


class LabelMSELoss(nn.Module):
    r"""Task loss of the same kind: :math:`\frac1C \sum_c (\sigma(z)_c - [c = y])^2`, mean over samples.

    Beside :class:`ProbabilityMSELoss` it takes the weight :math:`\alpha` and the match :math:`1 - \alpha`; both are
    then in one unit, which is what makes :math:`\alpha` a mixture of targets.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compare logits ``(N, C)`` with class indices ``(N,)``.

        Raises:
            ShapeError: if the shapes do not fit.
            TargetError: if a label is no class index of these logits.
            NonFiniteError: if the logits hold NaN or infinity (CPU).
        """
        check_ndim(logits, "logits", "(N, C)", at_least=2, at_most=2)
        check_target(target, logits)
        truth = one_hot(target.long(), logits.shape[1])
        loss = reduce_loss((at_least_float32(logits).softmax(1) - truth).square().mean(1))
        check_finite(loss, logits=logits)
        return loss


class GuidedDistiller(Distiller):
    r"""A distiller that also pulls the student's parameters towards zero, by norm and not by squared norm.

    .. math:: L = \alpha L_{label} + (1 - \alpha) L_{teacher} + \rho \sum_p \|p\|_2

    over the student's trained tensors p. The penalty plays the ridge's part; logged as ``loss/norms``.

    Args:
        arguments: As :class:`~limbeck_core.distiller.Distiller`.
        norm_weight: :math:`\rho \ge 0`; the released code uses 1e-4.
        options: As :class:`~limbeck_core.distiller.Distiller`.

    Raises:
        ValueError: if ``norm_weight`` is negative.

    Reference:
        Borup and Andersen, arXiv:2102.13088; the sum of norms is that of the authors' code.
    """

    def __init__(self, *arguments: Any, norm_weight: float = 1e-4, **options: Any) -> None:
        check_non_negative(norm_weight, "norm_weight")
        super().__init__(*arguments, **options)
        self.norm_weight = norm_weight

    def compute_losses(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the matches' losses and the penalty."""
        losses = super().compute_losses(batch, weights)
        trained = [parameter for parameter in self.student.parameters() if parameter.requires_grad]
        norms = [torch.linalg.vector_norm(parameter) for parameter in trained]
        losses["loss/norms"] = self.norm_weight * torch.stack(norms).sum()
        return losses
