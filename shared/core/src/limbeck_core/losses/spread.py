"""Module twins of :mod:`limbeck_core.functional.spread`."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck_core.checks import check_positive
from limbeck_core.functional import spread as functional
from limbeck_core.functional.reduction import Reduction, check_reduction


class KoLeoLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.koleo_loss` (DINOv2).

    Args:
        epsilon: Added to each distance, above 0.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over embeddings.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, *, epsilon: float = 1e-8, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive(epsilon, "epsilon")
        check_reduction(reduction)
        self.epsilon = epsilon
        self.reduction = reduction

    def forward(self, student_embeddings: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.koleo_loss(student_embeddings, epsilon=self.epsilon, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"epsilon={self.epsilon:g}, reduction={self.reduction!r}"
