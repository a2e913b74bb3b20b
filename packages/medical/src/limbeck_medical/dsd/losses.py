"""The loss between two heads of one network."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from limbeck_core.checks import check_finite, check_logits, check_positive
from limbeck_core.functional import kl_divergence_loss
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.functional.reduction import Reduction, blank_masked, check_reduction, reduce_loss


def self_distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 3.0,
    detach_teacher: bool = False,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Kullback-Leibler divergence from one head of a network to another, voxel by voxel (DSD).

    .. math:: L = \tau^2 \, KL\big(\sigma(z_t/\tau) \,\|\, \sigma(z_s/\tau)\big)

    With ``detach_teacher=False``, as in the authors' code, the gradient flows into the teaching head as well, so that
    both heads move towards each other; a teaching head that no label reaches can then agree by saying nothing. With
    ``detach_teacher=True`` this is :func:`limbeck_core.functional.kl_divergence_loss`.

    Args:
        student_logits: Raw scores of the head that learns, shape ``(N, K, ...)`` with the classes on axis 1.
        teacher_logits: Raw scores of the head that teaches, same shape.
        temperature: Softness :math:`\tau > 0` of both distributions (unitless). Paper: 3.
        detach_teacher: Whether the teaching head is left alone.
        mask: Voxels that count, shape ``(N, ...)``; boolean or weights. Default: all.
        reduction: ``"none"`` gives one value a voxel, shape ``(N, ...)``; ``"mean"`` and ``"sum"`` reduce those. The
            mean is over voxels and batch, so the value does not depend on the size of the crop.

    Returns:
        Loss in nats, scaled by :math:`\tau^2`.

    Raises:
        ShapeError: if shapes or devices differ, or there are fewer than two classes.
        ValueError: if ``temperature <= 0`` or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the logits that hold NaN or infinity.

    Reference:
        Banerjee et al., Volumetric medical image segmentation through dual self-distillation in U-shaped networks,
        arXiv:2306.03271.

    >>> import torch
    >>> self_distillation_loss(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
    tensor(0.)
    """
    if detach_teacher:
        return kl_divergence_loss(
            student_logits, teacher_logits, temperature=temperature, mask=mask, reduction=reduction
        )
    check_logits(student_logits, teacher_logits)
    check_positive(temperature, "temperature")
    check_reduction(reduction)
    student = at_least_float32(blank_masked(student_logits, mask, dim=1))
    teacher = at_least_float32(blank_masked(teacher_logits, mask, dim=1))
    per_class = kl_div(
        log_softmax(student / temperature, dim=1),
        log_softmax(teacher / temperature, dim=1),
        reduction="none",
        log_target=True,
    )
    loss = reduce_loss(per_class.sum(1) * temperature**2, reduction, mask=mask)
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss


class SelfDistillationLoss(nn.Module):
    """Module twin of :func:`self_distillation_loss`.

    Args:
        temperature: Softness of both distributions, above 0.
        detach_teacher: Whether the teaching head is left alone.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over voxels and batch.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self, temperature: float = 3.0, *, detach_teacher: bool = False, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        check_reduction(reduction)
        self.temperature = temperature
        self.detach_teacher = detach_teacher
        self.reduction = reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return self_distillation_loss(
            student_logits,
            teacher_logits,
            temperature=self.temperature,
            detach_teacher=self.detach_teacher,
            mask=mask,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"temperature={self.temperature}, detach_teacher={self.detach_teacher}, reduction={self.reduction!r}"
