"""Losses between scores of pairs: for the cross-encoder, for the bi-encoder, and the contrast that both start from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from limbeck_core.checks import check_finite, check_ndim, check_positive, check_same_shape
from limbeck_core.functional import unit_vectors
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss


def pair_score_cross_entropy_loss(
    student_logits: Tensor, teacher_scores: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """Binary cross-entropy of the cross-encoder with the bi-encoder's score as a soft target.

    A cosine below 0 is taken as 0 (a choice of ours): as a target it would push the logit to minus infinity.

    Args:
        student_logits: The cross-encoder's logits, shape ``(N,)``.
        teacher_scores: Similarities, shape ``(N,)``. Gradients never flow into it.
        reduction: ``"none"`` gives one value a pair.

    Returns:
        Loss in nats; at equality the target's entropy remains.

    Raises:
        ShapeError: if shapes differ.

    Reference:
        Liu et al., Trans-Encoder, arXiv:2109.13059, section 3.2.

    >>> pair_score_cross_entropy_loss(torch.zeros(1), torch.tensor([0.5]))  # log 2
    tensor(0.6931)
    """
    check_same_shape(student_logits, teacher_scores, "student_logits", "teacher_scores")
    check_reduction(reduction)
    student = at_least_float32(student_logits)
    target = teacher_scores.detach().to(student.dtype).clamp(0.0, 1.0)
    loss = reduce_loss(binary_cross_entropy_with_logits(student, target, reduction="none"), reduction)
    check_finite(loss, student_logits=student_logits, teacher_scores=teacher_scores)
    return loss


def pair_score_mse_loss(student_scores: Tensor, teacher_logits: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Squared difference of the bi-encoder's cosine and the cross-encoder's probability.

    Args:
        student_scores: The bi-encoder's cosines, shape ``(N,)``.
        teacher_logits: The cross-encoder's logits, whose sigmoid is the target, shape ``(N,)``. Gradients never flow
            into it.
        reduction: ``"none"`` gives one value a pair.

    Raises:
        ShapeError: if shapes differ.

    Reference:
        Liu et al., Trans-Encoder, arXiv:2109.13059, section 3.3.

    >>> pair_score_mse_loss(torch.tensor([1.0]), torch.tensor([0.0]))
    tensor(0.2500)
    """
    check_same_shape(student_scores, teacher_logits, "student_scores", "teacher_logits")
    check_reduction(reduction)
    student = at_least_float32(student_scores)
    loss = reduce_loss((student - teacher_logits.detach().to(student.dtype).sigmoid()).square(), reduction)
    check_finite(loss, student_scores=student_scores, teacher_logits=teacher_logits)
    return loss


class InBatchContrastLoss(nn.Module):
    r"""Contrast of two views of each sentence with the other sentences of the batch (SimCSE).

    .. math:: L = -\frac1N \sum_i \log \frac{\exp(\cos(a_i, b_i) / \tau)}{\sum_j \exp(\cos(a_i, b_j) / \tau)}

    Without labels both views are the same sentence under two dropout masks, both of the student, so gradient flows into
    both: this is no loss between student and teacher, though a match carries it.

    Args:
        temperature: :math:`\tau`.

    Raises:
        ValueError: if it is not above 0.

    Reference:
        Gao et al., SimCSE: Simple Contrastive Learning of Sentence Embeddings, arXiv:2104.08821, eq. 1.
    """

    relational = True
    reduction = "mean"

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        self.temperature = temperature

    def forward(self, first_embeddings: Tensor, second_embeddings: Tensor) -> Tensor:
        """Compute the loss; a batch of one sentence has no contrast and gives zero.

        Args:
            first_embeddings: One view, shape ``(N, D)``.
            second_embeddings: The other.

        Raises:
            ShapeError: if shapes differ.
        """
        check_same_shape(first_embeddings, second_embeddings, "first_embeddings", "second_embeddings")
        check_ndim(first_embeddings, "first_embeddings", "(N, D)", at_least=2, at_most=2)
        first, second = unit_vectors(first_embeddings), unit_vectors(second_embeddings)
        if len(first) < 2:
            return first.sum() * 0
        return cross_entropy(first @ second.T / self.temperature, torch.arange(len(first), device=first.device))

    def extra_repr(self) -> str:
        """Show the temperature in ``repr``."""
        return f"temperature={self.temperature}"
