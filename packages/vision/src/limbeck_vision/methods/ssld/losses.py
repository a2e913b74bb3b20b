"""Half the symmetric divergence of student and teacher, the whole loss of SSLD."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from limbeck_core.checks import check_finite, check_logits
from limbeck_core.functional.precision import in_one_precision
from limbeck_core.functional.reduction import Reduction, blank_masked, check_reduction, reduce_loss


def symmetric_kl_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Half the sum of both Kullback-Leibler divergences between student and teacher.

    .. math:: L = \tfrac12 \big[ KL(q \,\|\, p) + KL(p \,\|\, q) \big] = \tfrac12 \sum_k (q_k - p_k)(\ln q_k - \ln p_k)

    with :math:`p = \sigma(z_s)`, :math:`q = \sigma(z_t)`. The authors call it JS divergence; it is not the one to a
    mixture, for which see :func:`limbeck_core.functional.generalized_jsd_loss`. Exact from log-probabilities, without
    the published code's epsilon of 1e-12. A class that both ban (minus infinity) costs nothing; one that only one side
    bans makes the loss infinite.

    Args:
        student_logits: Raw scores, shape ``(N, C)`` or ``(N, C, ...)``; the class axis is 1.
        teacher_logits: Same shape. Gradients never flow into it.
        mask: Positions that count, shape ``(N, ...)`` without the class axis; boolean or weights. Default: all.
        reduction: ``"none"`` gives one value per position, shape ``(N, ...)``.

    Returns:
        Loss in nats.

    Raises:
        ShapeError: if shapes or devices differ (a teacher of other classes), or there are fewer than two classes.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the logits that hold NaN or infinity.

    Reference:
        Cui et al., Beyond Self-Supervision: A Simple Yet Effective Network Distillation Alternative to Improve
        Backbones, arXiv:2103.05959; as in the authors' released code.

    >>> z = torch.tensor([[1.0, 0.0]])
    >>> symmetric_kl_loss(z, z)
    tensor(0.)
    """
    check_logits(student_logits, teacher_logits)
    check_reduction(reduction)
    student, teacher = in_one_precision(
        blank_masked(student_logits, mask, dim=1), blank_masked(teacher_logits.detach(), mask, dim=1)
    )
    log_student, log_teacher = log_softmax(student, dim=1), log_softmax(teacher, dim=1)
    banned = (student == -torch.inf) & (teacher == -torch.inf)
    ratio = (log_teacher - log_student).masked_fill(banned, 0.0)
    per_position = 0.5 * ((log_teacher.exp() - log_student.exp()) * ratio).sum(1)
    loss = reduce_loss(per_position, reduction, mask=mask)
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss


class SymmetricKLLoss(nn.Module):
    """Module twin of :func:`symmetric_kl_loss`.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return symmetric_kl_loss(student_logits, teacher_logits, mask=mask, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"
