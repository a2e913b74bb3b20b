"""Losses on class scores: what the student says of each class against what the teacher says.

All of them take raw logits of shape ``(N, C)`` or ``(N, C, ...)`` with the classes on axis 1, work in float32 or
better, detach the teacher, and give a differentiable zero for an empty batch.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import log_softmax

from limbeck_core.checks import check_finite, check_logits, check_positive
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss


def kl_divergence_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Kullback-Leibler divergence from the softened teacher to the softened student (Hinton's KD).

    .. math:: L = \tau^2 \, KL\big(\sigma(z_t/\tau) \,\|\, \sigma(z_s/\tau)\big)

    Args:
        student_logits: Raw scores, shape ``(N, C)`` or ``(N, C, ...)``; the class axis is 1.
        teacher_logits: Same shape. Gradients never flow into it.
        temperature: Softness :math:`\tau > 0` of both distributions (unitless). Paper: ``T``.
        mask: Positions that count, shape ``(N, ...)`` without the class axis; boolean or weights. Default: all.
        reduction: ``"none"`` gives one value per position, shape ``(N, ...)``; ``"mean"`` and ``"sum"`` reduce those.
            For ``(N, C)`` logits ``"mean"`` is what ``torch.nn.functional.kl_div`` calls ``"batchmean"``.

    Returns:
        Loss in nats, scaled by :math:`\tau^2` so that gradients keep their size when ``temperature`` changes.

    Raises:
        ShapeError: if shapes or devices differ, or there are fewer than two classes.
        ValueError: if ``temperature <= 0`` or ``reduction`` is unknown.
        NonFiniteError: if the logits hold NaN or infinity (CPU), naming which.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531, section 2.

    >>> import torch
    >>> kl_divergence_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[2.0, 0.0]]), temperature=4.0)
    tensor(0.)
    """
    check_logits(student_logits, teacher_logits)
    check_positive(temperature, "temperature")
    check_reduction(reduction)
    log_student = log_softmax(at_least_float32(student_logits) / temperature, dim=1)
    log_teacher = log_softmax(at_least_float32(teacher_logits.detach()) / temperature, dim=1)
    per_position = (log_teacher.exp() * (log_teacher - log_student)).sum(1) * temperature**2
    loss = reduce_loss(per_position, reduction, mask=mask)
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss
