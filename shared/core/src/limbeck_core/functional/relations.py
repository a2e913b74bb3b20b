"""Losses on relations: between the samples of a batch, and between the tokens of a sequence.

Losses between samples (RKD, SP, PKT, CC) never compare a student's vector with a teacher's, only a student's relations
with a teacher's, so both may have any width. What they see is the batch they are given: with several ranks
:class:`~limbeck_core.match.Match` gathers the samples of all of them first, and under gradient accumulation each
micro-batch is a batch of its own. One sample has no relation to anything: the losses are then a differentiable zero and
say so in a ``RuntimeWarning``.

Products of features run in float32 or better, under autocast too: in half precision a sum of squares overflows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, mse_loss, smooth_l1_loss

from limbeck_core.checks import (
    check_finite,
    check_floating,
    check_ndim,
    check_non_negative,
    check_positive,
    check_same_device,
    check_same_shape,
)
from limbeck_core.errors import LimbeckError, ShapeError
from limbeck_core.functional.precision import (
    all_finite,
    at_least_float32,
    in_one_precision,
    reads_at_once,
    without_autocast,
)
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss

Kernel = Literal["gaussian", "bilinear"]

_PKT_EPSILON = 1e-7  # PKT, inside both logarithms
SMALLEST_NORM = 1e-12  # shorter vectors have no direction
_SMALLEST_SQUARED_DISTANCE = 1e-12  # RKD, under the root
_COINCIDENT = 1e-12  # squared distance, in units of the batch's spread, below which two samples are one
_ENTRIES_PER_CHUNK = 2**18  # of a map between tokens, on a CPU: 1 MB in float32

_LossT = TypeVar("_LossT", bound=Callable[..., Tensor])


def _relational(function: _LossT) -> _LossT:
    """Mark a loss that compares samples with each other, so that a match gathers them from all ranks."""
    function.__dict__["relational"] = True
    return function


@_relational
def distance_relation_loss(
    student_embeddings: Tensor, teacher_embeddings: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Difference of the distances between samples (RKD-D).

    .. math:: L = \frac{1}{N^2} \sum_{i,j} \ell_1^{smooth}\Big(\frac{d^s_{ij}}{\bar d^s}, \frac{d^t_{ij}}{\bar d^t}
        \Big), \quad d_{ij} = \|f_i - f_j\|_2, \quad \bar d = \operatorname{mean}_{i \ne j} d_{ij}

    Args:
        student_embeddings: One vector per sample, shape ``(N, D_s)``; maps ``(N, ...)`` are flattened.
        teacher_embeddings: Shape ``(N, D_t)`` or ``(N, ...)``, of any width. Gradients never flow into it.
        reduction: ``"none"`` gives one value per sample, shape ``(N,)``: the mean over its N relations.

    Returns:
        Loss without unit: scaling either side's features changes nothing. The mean distance takes part in the gradient.
        Samples closer than 1e-6 count as 1e-6 apart and get no gradient from each other.

    Raises:
        ShapeError: if the batch sizes or devices differ, or there is no feature axis.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the embeddings that hold NaN or infinity.

    Reference:
        Park et al., Relational Knowledge Distillation, arXiv:1904.05068, section 3.2.1. The mean over all pairs, the
        sample with itself included, is that of the published code.

    >>> import torch
    >>> points = torch.tensor([[0.0], [1.0], [3.0]])
    >>> distance_relation_loss(2 * points, points)
    tensor(0.)
    """
    return _relational_loss(student_embeddings, teacher_embeddings, 1.0, 0.0, reduction)


@_relational
def angle_relation_loss(
    student_embeddings: Tensor, teacher_embeddings: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Difference of the angles that samples form in threes (RKD-A).

    .. math:: L = \frac{1}{N^3} \sum_{i,j,k} \ell_1^{smooth}\big(\psi^s_{ijk}, \psi^t_{ijk}\big), \quad
        \psi_{ijk} = \Big\langle \frac{f_j - f_i}{\|f_j - f_i\|}, \frac{f_k - f_i}{\|f_k - f_i\|} \Big\rangle

    Memory grows with :math:`N^3`, whatever the width: the angles come from the batch's Gram matrix, in float64 where
    the device has it, since they are small differences of its entries.

    Args:
        student_embeddings: One vector per sample, shape ``(N, D_s)``; maps ``(N, ...)`` are flattened.
        teacher_embeddings: Shape ``(N, D_t)`` or ``(N, ...)``, of any width. Gradients never flow into it.
        reduction: ``"none"`` gives one value per sample, shape ``(N,)``: the mean over the :math:`N^2` angles at it.

    Returns:
        Loss between 0 and 1.5: neither the scale nor the place of either side's features matters. Samples that
        coincide form angles of cosine 0 and get no gradient from each other.

    Raises:
        ShapeError: if the batch sizes or devices differ, or there is no feature axis.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the embeddings that hold NaN or infinity.

    Reference:
        Park et al., Relational Knowledge Distillation, arXiv:1904.05068, section 3.2.2.

    >>> import torch
    >>> angle_relation_loss(torch.tensor([[0.0], [1.0], [2.0]]), torch.eye(3))  # a line against a triangle
    tensor(0.0926)
    """
    return _relational_loss(student_embeddings, teacher_embeddings, 0.0, 1.0, reduction)


@_relational
def relational_loss(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    *,
    distance_weight: float = 25.0,
    angle_weight: float = 50.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Distances and angles between samples in one (RKD-DA).

    .. math:: L = w_d \, L_{distance} + w_a \, L_{angle}

    The sum of :func:`distance_relation_loss` and :func:`angle_relation_loss`, which share their Gram matrix here. A
    weight of zero leaves its part uncomputed.

    Args:
        student_embeddings: One vector per sample, shape ``(N, D_s)``; maps ``(N, ...)`` are flattened.
        teacher_embeddings: Shape ``(N, D_t)`` or ``(N, ...)``, of any width. Gradients never flow into it.
        distance_weight: Weight :math:`w_d` of the distances; 25 with CIFAR.
        angle_weight: Weight :math:`w_a` of the angles; 50 with CIFAR.
        reduction: ``"none"`` gives one value per sample, shape ``(N,)``.

    Returns:
        Loss without unit.

    Raises:
        ShapeError: if the batch sizes or devices differ, or there is no feature axis.
        ValueError: if a weight is negative or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the embeddings that hold NaN or infinity.

    Reference:
        Park et al., Relational Knowledge Distillation, arXiv:1904.05068, section 3.3.

    >>> import torch
    >>> relational_loss(torch.tensor([[0.0], [1.0], [2.0]]), torch.eye(3))  # a line against a triangle
    tensor(5.6713)
    """
    check_non_negative(distance_weight, "distance_weight")
    check_non_negative(angle_weight, "angle_weight")
    return _relational_loss(student_embeddings, teacher_embeddings, distance_weight, angle_weight, reduction)


@_relational
def similarity_preserving_loss(
    student_features: Tensor, teacher_features: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Difference of the similarities between samples (SP).

    .. math:: L = \frac{1}{N^2} \| \tilde G_t - \tilde G_s \|_F^2, \quad G = F F^\top, \quad
        \tilde G_i = G_i / \|G_i\|_2

    Args:
        student_features: Feature maps or vectors, shape ``(N, ...)``; each sample is flattened.
        teacher_features: Shape ``(N, ...)``, of any size beyond axis 0. Gradients never flow into it.
        reduction: ``"none"`` gives one value per sample, shape ``(N,)``: its row's squared difference over N.

    Returns:
        Loss without unit; the scale of either side's features does not matter. Samples of zeros are similar to none.

    Raises:
        ShapeError: if the batch sizes or devices differ, or there is no feature axis.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the features that hold NaN or infinity.

    Reference:
        Tung and Mori, Similarity-Preserving Knowledge Distillation, arXiv:1907.09682, eq. 1-4.

    >>> import torch
    >>> similarity_preserving_loss(torch.eye(2), torch.ones(2, 2))  # rows (1, 0) against (1, 1) / sqrt(2)
    tensor(0.2929)
    """
    student, teacher = _pair(student_features, teacher_features, "features", reduction)
    if student.shape[0] < 2:
        return _no_relations(student, reduction)
    with without_autocast(student):
        difference = _unit(_gram(student)) - _unit(_gram(teacher))
        loss = _reduce_rows(difference.square(), reduction)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


@_relational
def probabilistic_transfer_loss(
    student_embeddings: Tensor, teacher_embeddings: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Divergence of the probabilities that samples are neighbours (PKT).

    .. math:: L = \frac{1}{N^2} \sum_{i,j} p^t_{ij} \ln \frac{p^t_{ij} + \epsilon}{p^s_{ij} + \epsilon}, \quad
        p_{ij} = \frac{1 + \cos(f_i, f_j)}{\sum_k 1 + \cos(f_i, f_k)}, \quad \epsilon = 10^{-7}

    Args:
        student_embeddings: One vector per sample, shape ``(N, D_s)``; maps ``(N, ...)`` are flattened.
        teacher_embeddings: Shape ``(N, D_t)`` or ``(N, ...)``, of any width. Gradients never flow into it.
        reduction: ``"none"`` gives one value per sample, shape ``(N,)``: its divergence over N.

    Returns:
        Loss in nats over N, which is why its usual weight is 30000. The scale of either side's vectors does not
        matter; a zero vector has cosine 0 with everything.

    Raises:
        ShapeError: if the batch sizes or devices differ, or there is no feature axis.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the embeddings that hold NaN or infinity.

    Reference:
        Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer, arXiv:1803.10837,
        section 3, with the cosine kernel; that a sample is its own neighbour and the mean runs over all pairs is the
        published code's.

    >>> import torch
    >>> probabilistic_transfer_loss(torch.eye(2), 3 * torch.eye(2))
    tensor(0.)
    """
    student, teacher = _pair(student_embeddings, teacher_embeddings, "embeddings", reduction)
    if student.shape[0] < 2:
        return _no_relations(student, reduction)
    with without_autocast(student):
        p_student, p_teacher = _neighbours(student), _neighbours(teacher)
        log_ratio = (p_teacher + _PKT_EPSILON).log() - (p_student + _PKT_EPSILON).log()
        loss = _reduce_rows(p_teacher * log_ratio, reduction)
    check_finite(loss, student_embeddings=student_embeddings, teacher_embeddings=teacher_embeddings)
    return loss


@_relational
def correlation_congruence_loss(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    *,
    kernel: Kernel = "gaussian",
    gamma: float = 0.4,
    order: int = 2,
) -> Tensor:
    r"""Distance of the kernel matrices of a batch (CC).

    .. math:: L = \frac{1}{N^2} \| K_s - K_t \|_F, \qquad
        K_{ij} = e^{-2\gamma} \sum_{p=0}^{P} \frac{(2\gamma)^p}{p!} (e_i \cdot e_j)^p
        \quad \text{or} \quad K_{ij} = e_i \cdot e_j

    The sum is the Taylor expansion of the Gaussian kernel :math:`e^{-\gamma \|e_i - e_j\|^2}` for vectors of length 1.
    Vectors are taken as they are: normalise them in the adapters if the kernel is to be Gaussian. The norm is not
    squared, so the loss does not fall apart into samples and there is no ``reduction``. The paper embeds both sides
    linearly to one width before (adapters again) and adds plain distillation (a match of its own).

    Args:
        student_embeddings: One vector per sample, shape ``(N, D_s)``; maps ``(N, ...)`` are flattened.
        teacher_embeddings: Shape ``(N, D_t)`` or ``(N, ...)``, of any width. Gradients never flow into it.
        kernel: ``"gaussian"`` (Taylor expansion) or ``"bilinear"``.
        gamma: Width :math:`\gamma > 0` of the Gaussian kernel. Its default is the paper's as far as known.
        order: Last power :math:`P \ge 1` of the expansion.

    Returns:
        A scalar.

    Raises:
        ShapeError: if the batch sizes or devices differ, or there is no feature axis.
        ValueError: if ``kernel`` is unknown, ``gamma`` is not above 0, or ``order`` is less than 1.
        NonFiniteError: if the loss is not finite (CPU), naming the embeddings that hold NaN or infinity.

    Reference:
        Peng et al., Correlation Congruence for Knowledge Distillation, arXiv:1904.01802, section 3.3. The norm is the
        published implementation's.

    >>> import torch
    >>> correlation_congruence_loss(torch.eye(2), torch.zeros(2, 2), kernel="bilinear")  # sqrt(2) / 4
    tensor(0.3536)
    """
    check_kernel(kernel, gamma, order)
    student, teacher = _pair(student_embeddings, teacher_embeddings, "embeddings", "mean")
    if student.shape[0] < 2:
        return _no_relations(student, "mean")
    with without_autocast(student):
        difference = _kernel(student, kernel, gamma, order) - _kernel(teacher, kernel, gamma, order)
        loss: Tensor = torch.linalg.matrix_norm(difference) / student.shape[0] ** 2
    check_finite(loss, student_embeddings=student_embeddings, teacher_embeddings=teacher_embeddings)
    return loss


def self_attention_relation_loss(
    student_states: Tensor,
    teacher_states: Tensor,
    student_keys: Tensor | None = None,
    teacher_keys: Tensor | None = None,
    *,
    relation_heads: int,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Divergence of the relations between tokens (MiniLM and MiniLMv2).

    .. math:: L = \frac{1}{N} \sum_n \frac{1}{A \, |x_n|} \sum_{a, l} KL\big(R^t_{n a l} \,\|\, R^s_{n a l}\big), \quad
        R = \operatorname{softmax}\Big(\frac{X_a Y_a^\top}{\sqrt{d / A}}\Big)

    The vectors of all attention heads, laid side by side, are split into :math:`A` relation heads of :math:`d / A`
    numbers each, so student and teacher need neither the same width nor the same number of attention heads.
    Without keys :math:`Y = X`: the relations query-query, key-key and value-value of MiniLMv2 and value-value of MiniLM
    are one match each. With keys it is MiniLM's attention distribution (queries as states, and
    ``relation_heads`` the attention heads).

    Only relation maps of one match exist at a time: the gradient is computed in the forward pass and held as vectors.
    It cannot be differentiated again.

    Args:
        student_states: Queries, keys or values of a layer before they are split into heads (and before rotary
            positions), shape ``(N, L, D_s)``.
        teacher_states: Shape ``(N, L, D_t)``, the same tokens. Gradients never flow into it.
        student_keys: Second factor, shape ``(N, L, D_s)``. Models with grouped keys repeat them to the queries' width.
        teacher_keys: Shape ``(N, L, D_t)``; given exactly when ``student_keys`` is.
        relation_heads: Number :math:`A` of relation heads; divides both widths.
        mask: Tokens that count, shape ``(N, L)``, in any pattern (an attention mask); zero drops a token from the
            softmax and from the mean. Default: all.
        reduction: ``"none"`` gives one value per sequence, shape ``(N,)``; ``"mean"`` is over the sequences that have
            a token.

    Returns:
        Loss in nats per relation row. What padding holds, and how much of it there is, has no influence.

    Raises:
        ShapeError: if shapes or devices do not fit, or ``relation_heads`` does not divide a width.
        ValueError: if ``relation_heads`` is less than 1 or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the tensor that holds NaN or infinity.
        LimbeckError: in a backward pass with ``create_graph=True``.

    Reference:
        Wang et al., MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers,
        arXiv:2002.10957, eq. 4-7; Wang et al., MiniLMv2: Multi-Head Self-Attention Relation Distillation,
        arXiv:2012.15828, section 3.

    >>> import torch
    >>> tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> self_attention_relation_loss(tokens, tokens, relation_heads=1)
    tensor(0.)
    """
    inputs = _check_states(student_states, teacher_states, student_keys, teacher_keys)
    check_relation_heads(relation_heads)
    check_reduction(reduction)
    dropped = None if mask is None else _dropped(mask, student_states.shape[0], student_states.shape[1])
    with without_autocast(student_states):
        student, student_second = _relation_factors(student_states, student_keys, relation_heads, dropped, "student")
        with torch.no_grad():
            teacher, teacher_second = _relation_factors(
                teacher_states, teacher_keys, relation_heads, dropped, "teacher"
            )
        per_sequence: Tensor = _RelationDivergence.apply(student, student_second, teacher, teacher_second, dropped)
    loss = reduce_loss(per_sequence, reduction, mask=None if dropped is None else ~dropped.all(1))
    check_finite(loss, **inputs)
    return loss


def attention_mse_loss(
    student_attention: Tensor,
    teacher_attention: Tensor,
    *,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Mean squared difference of attention scores (TinyBERT, TextBrewer).

    .. math:: L = \operatorname{mean}_{n, h, i, j : \text{mask}_i \wedge \text{mask}_j} (S^s_{nhij} - S^t_{nhij})^2

    Args:
        student_attention: Scores before the softmax (TinyBERT's choice) or probabilities, shape ``(N, L, L)`` or
            ``(N, H, L, L)``: query, then key.
        teacher_attention: Same shape. Gradients never flow into it.
        mask: Tokens that count, shape ``(N, L)``, in any pattern; a pair counts if both tokens do. Default: all.
        reduction: ``"none"`` gives one value per pair, in the shape of the scores; ``"mean"`` is over the pairs that
            count.

    Returns:
        Loss in squared score units. What padding holds has no influence; a score of minus infinity on both sides is no
        difference.

    Raises:
        ShapeError: if shapes or devices differ, the last two axes are not tokens by tokens, or ``mask`` does not fit.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the scores that hold NaN or infinity.

    Reference:
        Jiao et al., TinyBERT: Distilling BERT for Natural Language Understanding, arXiv:1909.10351, eq. 7; with a mask
        as in Yang et al., TextBrewer: An Open-Source Knowledge Distillation Toolkit for NLP, arXiv:2002.12620.

    >>> import torch
    >>> scores = torch.tensor([[[1.0, 7.0], [7.0, 7.0]]])
    >>> attention_mse_loss(scores, torch.zeros(1, 2, 2), mask=torch.tensor([[1, 0]]))
    tensor(1.)
    """
    _check_attention(student_attention, teacher_attention)
    check_reduction(reduction)
    student, teacher = at_least_float32(student_attention), at_least_float32(teacher_attention.detach())
    dropped = None
    if mask is not None:
        dropped = _pairs(_dropped(mask, student.shape[0], student.shape[-1]))
        dropped = dropped if student.ndim == 4 else dropped.squeeze(1)
    loss = _mean_square(student, teacher, dropped, reduction)
    if not reads_at_once(loss) or not all_finite(loss):
        # equal scores differ by nothing, infinite ones too; on an accelerator nobody can look whether there are any
        equal = student.detach() == teacher
        loss = _mean_square(student, teacher, dropped, reduction, equal=equal)
    check_finite(loss, student_attention=student_attention, teacher_attention=teacher_attention)
    return loss


def attention_cross_entropy_loss(
    student_attention: Tensor,
    teacher_attention: Tensor,
    *,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy between the attention distributions of teacher and student (TextBrewer).

    .. math:: L = - \operatorname{mean}_{n, h, i : \text{mask}_i} \sum_{j : \text{mask}_j}
        \sigma(S^t_{nhi})_j \, \log \sigma(S^s_{nhi})_j

    The softmax runs over the keys that count, so that padding has no influence. The teacher's entropy is not
    subtracted: at equality that entropy remains.

    Args:
        student_attention: Scores before the softmax, shape ``(N, L, L)`` or ``(N, H, L, L)``: query, then key.
        teacher_attention: Same shape. Gradients never flow into it.
        mask: Tokens that count, shape ``(N, L)``, in any pattern, as queries and as keys. Default: all.
        reduction: ``"none"`` gives one value per query, shape ``(N, L)`` or ``(N, H, L)``; ``"mean"`` is over the
            queries that count.

    Returns:
        Loss in nats. Scores of minus infinity on both sides (a causal mask) cost nothing.

    Raises:
        ShapeError: if shapes or devices differ, the last two axes are not tokens by tokens, or ``mask`` does not fit.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the scores that hold NaN or infinity.

    Reference:
        Yang et al., TextBrewer: An Open-Source Knowledge Distillation Toolkit for Natural Language Processing,
        arXiv:2002.12620, section 3.3 (losses between attention matrices).

    >>> import torch
    >>> attention_cross_entropy_loss(torch.zeros(1, 2, 2), torch.ones(1, 2, 2))  # ln 2
    tensor(0.6931)
    """
    _check_attention(student_attention, teacher_attention)
    check_reduction(reduction)
    student, teacher = in_one_precision(student_attention, teacher_attention.detach())
    dropped = None if mask is None else _dropped(mask, student.shape[0], student.shape[-1])
    rows: Tensor = _AttentionCrossEntropy.apply(_with_heads(student), _with_heads(teacher), dropped)
    queries = None if dropped is None else (~dropped).unsqueeze(1).expand(rows.shape).reshape(student.shape[:-1])
    loss = reduce_loss(rows.reshape(student.shape[:-1]), reduction, mask=queries)
    check_finite(loss, student_attention=student_attention, teacher_attention=teacher_attention)
    return loss


def unit_vectors(vectors: Tensor) -> Tensor:
    """Divide by the Euclidean length along the last axis, in float32 or better.

    A vector shorter than 1e-12 has no direction: it becomes zeros and gets no gradient, where dividing by a floor would
    multiply its gradient by 1e12.

    >>> import torch
    >>> unit_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return _unit(at_least_float32(vectors))


def check_kernel(kernel: str, gamma: float, order: int) -> None:
    """Raise ``ValueError`` unless ``kernel`` is known, ``gamma`` above 0 and ``order`` at least 1."""
    if kernel not in get_args(Kernel):
        raise ValueError(f"kernel must be 'gaussian' or 'bilinear', got {kernel!r}")
    check_positive(gamma, "gamma")
    if order < 1:
        raise ValueError(f"order must be 1 or more, got {order!r}: the power 0 alone is the same for all samples")


def check_relation_heads(relation_heads: int) -> None:
    """Raise ``ValueError`` unless there is at least one relation head."""
    if relation_heads < 1:
        raise ValueError(f"relation_heads must be 1 or more, got {relation_heads!r}")


def _pair(student_values: Tensor, teacher_values: Tensor, space: str, reduction: Reduction) -> tuple[Tensor, Tensor]:
    """Check a pair whose widths may differ; return both flat, in float32 or better, the teacher detached."""
    names = f"student_{space}", f"teacher_{space}"
    for values, name in zip((student_values, teacher_values), names, strict=True):
        check_ndim(values, name, "(N, D) or (N, ...)", at_least=2)
        check_floating(values, name)
    if student_values.shape[0] != teacher_values.shape[0]:
        raise ShapeError(
            f"{names[0]} and {names[1]} must hold the same samples on axis 0, got {tuple(student_values.shape)} and "
            f"{tuple(teacher_values.shape)}: feed both models one batch"
        )
    check_same_device(student_values, teacher_values, *names)
    check_reduction(reduction)
    return at_least_float32(student_values).flatten(1), at_least_float32(teacher_values.detach()).flatten(1)


def _no_relations(student: Tensor, reduction: Reduction) -> Tensor:
    """The loss of a batch without pairs: a differentiable zero, said aloud unless the batch is empty."""
    if student.shape[0] and not torch.compiler.is_compiling():
        warnings.warn(
            "a batch of one sample has no relations between samples: the loss is zero and teaches nothing; use a "
            "larger batch, or drop the last incomplete one",
            RuntimeWarning,
            stacklevel=3,
        )
    # a fill, not a product: zero times NaN is NaN
    return reduce_loss(student.masked_fill(torch.ones_like(student, dtype=torch.bool), 0.0).sum(1), reduction)


def _reduce_rows(relations: Tensor, reduction: Reduction) -> Tensor:
    """Reduce the means over each sample's relations; their mean is that of all relations, in one pass."""
    return relations.mean() if reduction == "mean" else reduce_loss(relations.mean(1), reduction)


def _relational_loss(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    distance_weight: float,
    angle_weight: float,
    reduction: Reduction,
) -> Tensor:
    student, teacher = _pair(student_embeddings, teacher_embeddings, "embeddings", reduction)
    count = student.shape[0]
    if count < 2:
        return _no_relations(student, reduction)
    with without_autocast(student):
        of_student, of_teacher = _centred_gram(student), _centred_gram(teacher)
        terms = []
        if distance_weight:
            difference = smooth_l1_loss(_distances(of_student), _distances(of_teacher), reduction="none")
            terms.append(distance_weight * difference.mean(1))
        if angle_weight:
            terms.append(angle_weight * _mean_angle_difference(of_student, of_teacher))
        per_sample = sum(terms, start=student.new_zeros(count))
    loss = reduce_loss(per_sample.to(student.dtype), reduction)
    check_finite(loss, student_embeddings=student_embeddings, teacher_embeddings=teacher_embeddings)
    return loss


def _unit(vectors: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    unit: Tensor = vectors / norm.masked_fill(norm < SMALLEST_NORM, math.inf)
    return unit


class _Gram(torch.autograd.Function):
    """Products of all rows with all rows. Backward takes one product where that of ``x @ x.T`` takes two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ x.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        product: Tensor = (gradient + gradient.T) @ x
        return product


def _gram(x: Tensor) -> Tensor:
    product: Tensor = _Gram.apply(x)
    return product


def _centred_gram(x: Tensor) -> Tensor:
    """Gram matrix around the batch's mean, in float64 where the device has it: distances are its small differences."""
    exact = x if x.device.type == "mps" else x.double()
    return _gram(exact - exact.detach().mean(0))


def _squared_distances(gram: Tensor) -> Tensor:
    length = gram.diagonal()
    return length[:, None] + length[None, :] - 2 * gram


def _distances(gram: Tensor) -> Tensor:
    """Distances in units of their mean over the pairs; a sample with itself has zero."""
    count = gram.shape[0]
    distance = _squared_distances(gram).clamp(min=_SMALLEST_SQUARED_DISTANCE).sqrt()
    distance = distance.masked_fill(torch.eye(count, dtype=torch.bool, device=gram.device), 0.0)
    return distance / (distance.sum() / (count * (count - 1)))


def _angle_parts(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse distances, zero for samples that coincide, and ``G_ij - G_ii / 2``, both (N, N)."""
    squared = _squared_distances(gram)
    spread = gram.detach().diagonal().mean()
    inverse = squared.masked_fill(squared <= _COINCIDENT * spread, math.inf).rsqrt()
    return inverse, gram - gram.diagonal()[:, None] / 2


def _angles(gram: Tensor) -> Tensor:
    """Cosine of the angle at sample i between samples j and k, shape (N, N, N)."""
    inverse, offset = _angle_parts(gram)
    # (f_j - f_i) . (f_k - f_i) = G_jk - (G_ij - G_ii / 2) - (G_ik - G_ii / 2)
    product = (gram - offset[:, :, None]) - offset[:, None, :]
    return product * inverse[:, :, None] * inverse[:, None, :]


def _composed_angle_difference(of_student: Tensor, of_teacher: Tensor) -> Tensor:
    return smooth_l1_loss(_angles(of_student), _angles(of_teacher), reduction="none").flatten(1).mean(1)


class _AngleDifference(torch.autograd.Function):
    """Smooth difference of the angles at each sample, in fewer passes than what it is composed of, within the cache."""

    @staticmethod
    def forward(ctx: Any, of_student: Tensor, of_teacher: Tensor) -> Tensor:
        count = of_student.shape[0]
        student, teacher = _angle_parts(of_student), _angle_parts(of_teacher)
        values = of_student.new_empty(count)
        slope = of_student.new_empty(count, count, count)  # by the products of differences
        by_length = torch.empty_like(of_student)  # slope by the angles times the angles, added up over k
        step = max(1, _ENTRIES_PER_CHUNK // count**2) if reads_at_once(of_student) else count
        for start in range(0, count, step):
            part = slice(start, start + step)
            angles, scale = _some_angles(of_student, *student, part)
            difference = angles - _some_angles(of_teacher, *teacher, part)[0]
            clipped = difference.clamp(-1, 1)
            # the smooth difference is d^2 / 2 inside and |d| - 1/2 outside, both clipped * (d - clipped / 2)
            values[part] = difference.sub_(clipped, alpha=0.5).mul_(clipped).sum((1, 2))
            by_length[part] = angles.mul_(clipped).sum(2)
            torch.mul(clipped, scale, out=slope[part])
        ctx.save_for_backward(of_student, of_teacher, slope, by_length, student[0])
        return values / count**2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        of_student, of_teacher, slope, by_length, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative comes from the composed form
            with torch.enable_grad():
                loss = _composed_angle_difference(of_student, of_teacher)
            return torch.autograd.grad(loss, of_student, gradient, create_graph=True)[0], None
        count = of_student.shape[0]
        weight = gradient / count**2
        # the products hold G_jk - G_ij - G_ik + G_ii
        of_pair = weight[:, None] * slope.sum(2)
        result = (weight @ slope.flatten(1)).reshape(count, count) - 2 * of_pair
        # the inverse distances hold G_ii + G_jj - 2 G_ij
        of_squared = -weight[:, None] * by_length * inverse.square()
        result -= 2 * of_squared
        result.diagonal().add_(of_pair.sum(1) + of_squared.sum(0) + of_squared.sum(1))
        return result, None


def _some_angles(gram: Tensor, inverse: Tensor, offset: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """Angles at some of the samples, and the scale 1 / (d_ij d_ik) in them."""
    scale = inverse[part, :, None] * inverse[part, None, :]
    angles = gram - offset[part, :, None]
    return angles.sub_(offset[part, None, :]).mul_(scale), scale


def _mean_angle_difference(of_student: Tensor, of_teacher: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # which fuses the passes by itself
        return _composed_angle_difference(of_student, of_teacher)
    difference: Tensor = _AngleDifference.apply(of_student, of_teacher)
    return difference


def _neighbours(x: Tensor) -> Tensor:
    """Probability that sample i picks sample j as its neighbour."""
    # rounding takes the cosine of opposite vectors below -1
    similarity = (_gram(_unit(x)) + 1).relu()
    return similarity / similarity.sum(1, keepdim=True)


def _kernel(x: Tensor, kernel: Kernel, gamma: float, order: int) -> Tensor:
    product = _gram(x)
    if kernel == "bilinear":
        return product
    # Horner's scheme: 1 + (2 gamma z / 1) (1 + (2 gamma z / 2) (1 + ...))
    value = torch.ones_like(product)
    for power in range(order, 0, -1):
        value = 1 + product * (2 * gamma / power) * value
    return math.exp(-2 * gamma) * value


def _check_states(
    student_states: Tensor, teacher_states: Tensor, student_keys: Tensor | None, teacher_keys: Tensor | None
) -> dict[str, Tensor]:
    """Check up to four tensors (N, L, D); return those that were given, by argument name."""
    if (student_keys is None) != (teacher_keys is None):
        given = "student_keys" if teacher_keys is None else "teacher_keys"
        raise ShapeError(
            f"student_keys and teacher_keys go together, got {given} alone: both sides must relate the same things"
        )
    inputs = {"student_states": student_states, "teacher_states": teacher_states}
    if student_keys is not None and teacher_keys is not None:
        inputs |= {"student_keys": student_keys, "teacher_keys": teacher_keys}
    for name, tensor in inputs.items():
        check_ndim(tensor, name, "(N, L, D)", at_least=3, at_most=3)
        check_floating(tensor, name)
        if tensor.shape[:2] != student_states.shape[:2]:
            raise ShapeError(
                f"student_states and {name} must hold the same tokens (N, L), got {tuple(student_states.shape)} and "
                f"{tuple(tensor.shape)}: feed both models one tokenisation, padded alike"
            )
        check_same_device(student_states, tensor, "student_states", name)
    for side in ("student", "teacher"):
        states, keys = inputs[f"{side}_states"], inputs.get(f"{side}_keys")
        if keys is not None and keys.shape != states.shape:
            raise ShapeError(
                f"{side}_states and {side}_keys must have one width, got {tuple(states.shape)} and "
                f"{tuple(keys.shape)}: repeat grouped keys to the width of the queries"
            )
    return inputs


def _relation_factors(
    states: Tensor, keys: Tensor | None, relation_heads: int, dropped: Tensor | None, side: str
) -> tuple[Tensor, Tensor | None]:
    """Split into relation heads, shape (N, A, L, D / A), with zeros for dropped tokens: NaN there must not spread."""
    width = states.shape[2]
    if width % relation_heads:
        raise ShapeError(
            f"relation_heads={relation_heads} must divide the width of {side}_states, got {width} (shape "
            f"{tuple(states.shape)}): pick a common divisor of both widths"
        )

    def split(vectors: Tensor) -> Tensor:
        if dropped is not None:
            vectors = vectors.masked_fill(dropped.unsqueeze(2), 0.0)
        heads = at_least_float32(vectors).reshape(*vectors.shape[:2], relation_heads, width // relation_heads)
        return heads.transpose(1, 2)

    return split(states), None if keys is None else split(keys)


class _RelationDivergence(torch.autograd.Function):
    """Divergence per sequence, with its gradient from the forward pass: three maps exist at a time, none is held."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        student_keys: Tensor | None,
        teacher: Tensor,
        teacher_keys: Tensor | None,
        dropped: Tensor | None,
    ) -> Tensor:
        values = student.new_zeros(student.shape[0])
        of_states = torch.zeros_like(student)
        of_keys = None if student_keys is None else torch.zeros_like(student)
        for chunk, length in _chunks(student.shape[0], student.shape[1], student.shape[2], dropped, values):
            here = (chunk, slice(None), slice(0, length))
            states = student[here]
            keys = states if student_keys is None else student_keys[here]
            second = teacher[here] if teacher_keys is None else teacher_keys[here]
            hidden = None if dropped is None else dropped[chunk, :length]
            values[chunk], slope = _relation_divergence(states, keys, teacher[here], second, hidden)
            if of_keys is None:
                of_states[here] = (slope + slope.transpose(-1, -2)) @ states
            else:
                of_states[here] = slope @ keys
                of_keys[here] = slope.transpose(-1, -2) @ states
        ctx.save_for_backward(of_states, of_keys)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise LimbeckError(
                "self_attention_relation_loss cannot be differentiated twice: call backward without create_graph=True"
            )
        of_states, of_keys = ctx.saved_tensors
        outer = gradient[:, None, None, None]
        return of_states * outer, None if of_keys is None else of_keys * outer, None, None, None


def _relation_divergence(
    states: Tensor, keys: Tensor, teacher_states: Tensor, teacher_keys: Tensor, dropped: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Divergence per sequence and its slope by the products of states and keys."""
    heads, tokens, width = states.shape[1:]
    student, teacher = _relations(states, keys, dropped), _relations(teacher_states, teacher_keys, dropped)
    log_student, p_teacher = log_softmax(student, dim=-1), teacher.softmax(-1)
    rows = torch.linalg.vecdot(p_teacher, log_softmax(teacher, dim=-1).sub_(log_student))
    if dropped is None:
        weight = states.new_full((states.shape[0], 1, 1), 1 / (heads * max(tokens, 1)))
    else:
        kept = (~dropped).to(states.dtype)
        weight = (kept / (heads * kept.sum(1, keepdim=True).clamp(min=1))).unsqueeze(1)
    # not exp(log_student): where that underflows, exp takes six times as long on a CPU
    slope = student.softmax(-1).sub_(p_teacher).mul_((weight / math.sqrt(width)).unsqueeze(-1))
    return (rows * weight).sum((1, 2)), slope


def _relations(states: Tensor, keys: Tensor, dropped: Tensor | None) -> Tensor:
    scores = (states / math.sqrt(states.shape[-1])) @ keys.transpose(-1, -2)
    # the lowest number instead of minus infinity: a sequence without tokens would give NaN
    return scores if dropped is None else scores.masked_fill_(dropped[:, None, None], torch.finfo(scores.dtype).min)


def _chunks(count: int, heads: int, tokens: int, dropped: Tensor | None, like: Tensor) -> Iterator[tuple[slice, int]]:
    """Split sequences into chunks; yield each with the number of tokens before which all that count stand.

    On a CPU maps that fit into its cache take half the time, and padding at the end need not be computed. Elsewhere,
    and while tracing, all sequences are one chunk of full length.
    """
    if not reads_at_once(like):
        yield slice(0, count), tokens
        return
    size = max(1, _ENTRIES_PER_CHUNK // max(heads * tokens * tokens, 1))
    for start in range(0, count, size):
        chunk = slice(start, min(start + size, count))
        if dropped is None:
            yield chunk, tokens
            continue
        kept = (~dropped[chunk]).any(0).nonzero()
        if len(kept):
            yield chunk, int(kept[-1]) + 1


def _check_attention(student_attention: Tensor, teacher_attention: Tensor) -> None:
    for attention, name in ((student_attention, "student_attention"), (teacher_attention, "teacher_attention")):
        check_ndim(attention, name, "(N, L, L) or (N, H, L, L)", at_least=3, at_most=4)
        check_floating(attention, name)
        if attention.shape[-1] != attention.shape[-2]:
            raise ShapeError(
                f"{name} must relate tokens to the same tokens on its last two axes, got {tuple(attention.shape)}"
            )
    check_same_shape(
        student_attention,
        teacher_attention,
        "student_attention",
        "teacher_attention",
        hint="compare layers with the same number of heads, or average over the heads first",
    )


def _dropped(mask: Tensor, count: int, tokens: int) -> Tensor:
    """Tokens that do not count, as booleans (N, L)."""
    if mask.shape != (count, tokens):
        raise ShapeError(f"mask must have one entry per token, shape {(count, tokens)}, got {tuple(mask.shape)}")
    return mask == 0


def _with_heads(attention: Tensor) -> Tensor:
    return attention if attention.ndim == 4 else attention.unsqueeze(1)


class _AttentionCrossEntropy(torch.autograd.Function):
    """Cross-entropy of two softmaxes along the last axis of (N, H, L, L), in fewer passes than composed of both."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, dropped: Tensor | None) -> Tensor:
        rows = student.new_zeros(student.shape[:-1])
        slope = torch.zeros_like(student)
        for chunk, length in _chunks(student.shape[0], student.shape[1], student.shape[2], dropped, rows):
            here = (chunk, slice(None), slice(0, length), slice(0, length))
            hidden = None if dropped is None else dropped[chunk, :length]
            within, p_teacher = _within(student[here], hidden), _within(teacher[here], hidden).softmax(-1)
            log_student = log_softmax(within, dim=-1)
            values = torch.linalg.vecdot(p_teacher, log_student)
            if not reads_at_once(values) or not all_finite(values):
                values = torch.linalg.vecdot(p_teacher, log_student.masked_fill(p_teacher == 0, 0.0))
            rows[here[:-1]] = -values
            # not exp(log_student): where that underflows, exp takes six times as long on a CPU
            slope[here] = within.softmax(-1).sub_(p_teacher)
        ctx.save_for_backward(student, teacher, dropped, slope)
        return rows

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        student, teacher, dropped, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative needs the slope as a function of the student
            slope = _within(student, dropped).softmax(-1) - _within(teacher, dropped).softmax(-1)
        return slope * gradient.unsqueeze(-1), None, None


def _within(scores: Tensor, dropped: Tensor | None) -> Tensor:
    """Scores that a softmax over the last axis will see, where some tokens are dropped."""
    # the lowest number instead of minus infinity: it leaves a softmax to a row without keys
    return scores if dropped is None else torch.where(_pairs(dropped), torch.finfo(scores.dtype).min, scores)


def _pairs(dropped: Tensor) -> Tensor:
    """Pairs of which a token is dropped, shape (N, 1, L, L)."""
    return (dropped.unsqueeze(2) | dropped.unsqueeze(1)).unsqueeze(1)


def _mean_square(
    student: Tensor, teacher: Tensor, dropped: Tensor | None, reduction: Reduction, *, equal: Tensor | None = None
) -> Tensor:
    if reduction == "mean" and dropped is None and equal is None and student.numel():
        return mse_loss(student, teacher)  # one pass instead of three
    if equal is not None:
        difference = (student - teacher).masked_fill(equal if dropped is None else equal | dropped, 0.0)
        squares = difference.square()
    else:
        # half the time of masking differences, and as good if all is finite, which the caller asks
        squares = mse_loss(student, teacher, reduction="none")
        squares = squares if dropped is None else squares * (~dropped).to(squares.dtype)
    if reduction == "none":
        return squares
    total = squares.sum()
    if reduction == "sum":
        return total
    if dropped is None:
        return total / max(student.numel(), 1)
    heads = student.shape[1] if student.ndim == 4 else 1
    return total / ((~dropped).sum() * heads).clamp(min=1)
