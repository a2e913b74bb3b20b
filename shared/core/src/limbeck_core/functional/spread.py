"""Losses that keep the embeddings of a batch apart, without any teacher."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck_core.checks import check_finite, check_floating, check_ndim, check_positive
from limbeck_core.functional.precision import without_autocast
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss
from limbeck_core.functional.relations import unit_vectors


def koleo_loss(student_embeddings: Tensor, *, epsilon: float = 1e-8, reduction: Reduction = "mean") -> Tensor:
    r"""Spread embeddings over the sphere: the negative Kozachenko-Leonenko estimate of their entropy.

    .. math:: L = - \frac1N \sum_i \ln\Big( \min_{j \ne i} \|x_i - x_j\|_2 + \epsilon \Big), \quad
        x = \frac{f}{\|f\|_2}

    Computed in float32 or better. With several ranks each spreads its own samples.

    Args:
        student_embeddings: Shape ``(N, D)``.
        epsilon: Added to each distance; two equal embeddings cost :math:`-\ln \epsilon` and get no gradient.
        reduction: ``"none"`` gives one value per embedding, shape ``(N,)``.

    Returns:
        Loss, negative where neighbours are further apart than 1; 0 for a single embedding, which has no neighbour.

    Raises:
        ShapeError: if ``student_embeddings`` is no matrix of floating-point numbers.
        ValueError: if ``epsilon`` is not above 0 or ``reduction`` is unknown.
        NonFiniteError: if the embeddings hold NaN or infinity (CPU).

    Reference:
        Sablayrolles et al., Spreading vectors for similarity search, arXiv:1806.03198, section 3; used by DINOv2,
        arXiv:2304.07193, with weight 0.1.

    >>> import torch
    >>> koleo_loss(torch.tensor([[1.0, 0.0], [0.0, 5.0]]))  # -ln sqrt(2)
    tensor(-0.3466)
    """
    check_ndim(student_embeddings, "student_embeddings", "(N, D)", at_least=2, at_most=2)
    check_floating(student_embeddings, "student_embeddings")
    check_positive(epsilon, "epsilon")
    check_reduction(reduction)
    if len(student_embeddings) < 2:
        return reduce_loss(student_embeddings.sum(1) * 0, reduction)
    with without_autocast(student_embeddings):
        x = unit_vectors(student_embeddings)
        with torch.no_grad():
            similarity = x @ x.T
            nearest = similarity.fill_diagonal_(-2.0).argmax(1)
        distance = torch.linalg.vector_norm(x - x[nearest], dim=1)
        loss = reduce_loss(-(distance + epsilon).log(), reduction)
    check_finite(loss, student_embeddings=student_embeddings)
    return loss
