"""Module twins of :mod:`limbeck_core.functional.logits`."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck_core.checks import check_positive
from limbeck_core.functional import logits as functional
from limbeck_core.functional.reduction import Reduction, check_reduction


class KLDivergenceLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.kl_divergence_loss`.

    Args:
        temperature: Softness of both distributions, above 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over samples.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, temperature: float = 1.0, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        check_reduction(reduction)
        self.temperature = temperature
        self.reduction = reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.kl_divergence_loss(
            student_logits, teacher_logits, temperature=self.temperature, mask=mask, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"temperature={self.temperature}, reduction={self.reduction!r}"
