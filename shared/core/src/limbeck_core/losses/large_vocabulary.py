"""Module twins of :mod:`limbeck_core.functional.large_vocabulary`."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck_core.checks import check_positive
from limbeck_core.functional import large_vocabulary as functional
from limbeck_core.functional.distributions import check_beta
from limbeck_core.functional.reduction import Reduction, check_reduction


class LinearJSDLoss(nn.Module):
    """Module twin of :func:`limbeck_core.functional.linear_jsd_loss`.

    As a match it reads what goes into both heads, here the last norm of a transformers decoder, and their weights::

        Match(
            LinearJSDLoss(),
            "model.norm",
            "model.norm",
            extras={
                "student_weight": Tap("lm_head.weight", of="student"),
                "teacher_weight": Tap("lm_head.weight", of="teacher"),
            },
        )

    It saves nothing while the models compute all their logits besides: tell them not to (in transformers,
    ``logits_to_keep=1``).

    Args:
        beta: Weight of the teacher in the mixture; 0 is the forward divergence, 1 the reverse one.
        temperature: Softness of both distributions, above 0.
        vocabulary_size: How many ids are real, where both models pad their weights. Default: the smaller vocabulary.
        chunk_size: Tokens per chunk. Default: see the function.
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
        chunk_size: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_beta(beta)
        check_positive(temperature, "temperature")
        if chunk_size is not None:
            check_positive(chunk_size, "chunk_size")
        check_reduction(reduction)
        self.beta = beta
        self.temperature = temperature
        self.vocabulary_size = vocabulary_size
        self.chunk_size = chunk_size
        self.reduction = reduction

    def forward(
        self,
        student_hidden: Tensor,
        teacher_hidden: Tensor,
        student_weight: Tensor,
        teacher_weight: Tensor,
        *,
        student_bias: Tensor | None = None,
        teacher_bias: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return functional.linear_jsd_loss(
            student_hidden,
            teacher_hidden,
            student_weight,
            teacher_weight,
            student_bias=student_bias,
            teacher_bias=teacher_bias,
            beta=self.beta,
            temperature=self.temperature,
            vocabulary_size=self.vocabulary_size,
            chunk_size=self.chunk_size,
            mask=mask,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return (
            f"beta={self.beta}, temperature={self.temperature}, vocabulary_size={self.vocabulary_size}, "
            f"chunk_size={self.chunk_size}, reduction={self.reduction!r}"
        )
