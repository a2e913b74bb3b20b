"""Module twins of :mod:`limbeck_core.functional.distributions`."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck_core.checks import check_positive
from limbeck_core.functional import distributions as functional
from limbeck_core.functional.reduction import Reduction, check_reduction


class GeneralizedJSDLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.generalized_jsd_loss` (GKD).

    Args:
        beta: Weight of the teacher in the mixture; 0 is the forward divergence, 1 the reverse one.
        temperature: Softness of both distributions, above 0.
        vocabulary_size: How many ids are real, where both models pad their logits. Default: the smaller vocabulary.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over tokens.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        beta: float = 0.5,
        *,
        temperature: float = 1.0,
        vocabulary_size: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        functional.check_beta(beta)
        check_positive(temperature, "temperature")
        check_reduction(reduction)
        self.beta = beta
        self.temperature = temperature
        self.vocabulary_size = vocabulary_size
        self.reduction = reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.generalized_jsd_loss(
            student_logits,
            teacher_logits,
            beta=self.beta,
            temperature=self.temperature,
            vocabulary_size=self.vocabulary_size,
            mask=mask,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return (
            f"beta={self.beta}, temperature={self.temperature}, vocabulary_size={self.vocabulary_size}, "
            f"reduction={self.reduction!r}"
        )
