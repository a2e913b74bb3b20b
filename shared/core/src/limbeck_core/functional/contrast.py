"""Losses that tell samples apart or agree on prototypes: against a memory, against a centre, against each other.

What a method remembers between steps (memories, normalisers, the centre) is an argument here and a buffer of the module
twin in :mod:`limbeck_core.losses.contrast`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softplus

from limbeck_core.checks import (
    check_between,
    check_finite,
    check_floating,
    check_ndim,
    check_positive,
    check_same_device,
    check_same_shape,
)
from limbeck_core.errors import LimbeckError, ShapeError, TargetError
from limbeck_core.functional.precision import at_least_float32, in_one_precision, reads_at_once, without_autocast
from limbeck_core.functional.reduction import Reduction, blank_masked, check_reduction, reduce_loss
from limbeck_core.functional.relations import SMALLEST_NORM, unit_vectors
from limbeck_core.gather import all_max, all_sum

_NOISE_EPSILON = 1e-7  # CRD, in the denominators of the posterior
_DENSE_UP_TO = 32  # memory rows per index up to which products with all rows cost less than copying the rows asked for
_ENTRIES_AT_ONCE = 2**26  # of products or copied rows: 256 MB in float32


def normalized_mse_loss(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    *,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Squared distance of normalised vectors (BYOL, ATST).

    .. math:: L = \Big\| \frac{f_s}{\|f_s\|} - \frac{f_t}{\|f_t\|} \Big\|_2^2 = 2 - 2 \cos(f_s, f_t)

    Args:
        student_embeddings: Predictions, shape ``(N, D)`` or ``(N, ..., D)``: the last axis is compared.
        teacher_embeddings: Projections to predict, same shape. Gradients never flow into it.
        mask: Positions that count (masked frames in ATST-Frame), shape ``(N, ...)`` without the last axis; boolean or
            weights. Default: all.
        reduction: ``"none"`` gives one value per position, shape ``(N, ...)``; ``"mean"`` is over those that count.

    Returns:
        Loss between 0 and 4. A zero vector has cosine 0 with everything.

    Raises:
        ShapeError: if shapes or devices differ, or ``mask`` does not fit.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the embeddings that hold NaN or infinity.

    Reference:
        Grill et al., Bootstrap Your Own Latent, arXiv:2006.07733, eq. 2.

    >>> import torch
    >>> normalized_mse_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]]))
    tensor(2.)
    """
    for embeddings, name in ((student_embeddings, "student_embeddings"), (teacher_embeddings, "teacher_embeddings")):
        check_ndim(embeddings, name, "(N, D) or (N, ..., D)", at_least=2)
        check_floating(embeddings, name)
    check_same_shape(student_embeddings, teacher_embeddings, "student_embeddings", "teacher_embeddings")
    check_reduction(reduction)
    student = at_least_float32(blank_masked(student_embeddings, mask, dim=-1))
    teacher = unit_vectors(blank_masked(teacher_embeddings.detach(), mask, dim=-1))
    length = torch.linalg.vector_norm(student, dim=-1)
    cosine = (student * teacher).sum(-1) / length.masked_fill(length < SMALLEST_NORM, math.inf)
    loss = reduce_loss(2 - 2 * cosine, reduction, mask=mask)
    check_finite(loss, student_embeddings=student_embeddings, teacher_embeddings=teacher_embeddings)
    return loss


def dino_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    center: Tensor | None = None,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    teacher_views: int = 2,
    skip_same_view: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy between the prototypes that teacher and student assign to views of one image (DINO).

    .. math:: L = - \frac{1}{P} \sum_{g, v : v \ne g} \frac1N \sum_n
        \operatorname{softmax}\Big(\frac{t_{gn} - c}{\tau_t}\Big) \cdot \log \operatorname{softmax}\Big(
        \frac{s_{vn}}{\tau_s}\Big)

    Args:
        student_logits: Scores of the prototypes for V views of N images, view by view: shape ``(V * N, K)``, the first
            N rows being the first view. The views that the teacher sees come first, local crops after them.
        teacher_logits: Scores for ``teacher_views`` views of the same images, shape ``(G * N, K)``. Gradients never
            flow into it.
        center: Centre :math:`c` of the teacher's scores, shape ``(K,)``; :func:`moving_center` moves it after each
            step. Default: zero.
        student_temperature: Softness :math:`\tau_s > 0` (unitless).
        teacher_temperature: Softness :math:`\tau_t > 0` (unitless); DINO raises it from 0.04 to 0.07.
        teacher_views: Number G of views that the teacher sees.
        skip_same_view: Leave out pairs in which both see the same view (DINO). ``False`` compares all, for students
            whose views are masked versions of the teacher's.
        reduction: ``"none"`` gives one value per image, shape ``(N,)``: the mean over its P pairs.

    Returns:
        Loss in nats. The teacher's entropy is not subtracted.

    Raises:
        ShapeError: if the numbers of rows or prototypes do not fit together, or no pair is left.
        ValueError: if a temperature is not above 0, ``teacher_views`` is less than 1, or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the logits that hold NaN or infinity.

    Reference:
        Caron et al., Emerging Properties in Self-Supervised Vision Transformers, arXiv:2104.14294, eq. 1-4.

    >>> import torch
    >>> dino_loss(torch.zeros(2, 4), torch.ones(2, 4))  # ln 4
    tensor(1.3863)
    """
    check_dino(student_temperature, teacher_temperature, teacher_views)
    check_reduction(reduction)
    views, pairs = _check_views(student_logits, teacher_logits, teacher_views, skip_same_view)
    _check_center(center, teacher_logits)
    if not student_logits.shape[0]:
        return reduce_loss(student_logits.sum(1), reduction)
    teacher = at_least_float32(teacher_logits.detach())
    if center is not None:
        teacher = teacher - center
    p_teacher = (teacher / teacher_temperature).softmax(1).reshape(teacher_views, -1, teacher.shape[1])
    scaled = (at_least_float32(student_logits) / student_temperature).reshape(views, -1, teacher.shape[1])
    per_image: Tensor = _AcrossViews.apply(scaled, p_teacher, skip_same_view) / pairs
    loss = reduce_loss(per_image, reduction)
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss


@torch.no_grad()
def moving_center(center: Tensor, teacher_logits: Tensor, *, momentum: float = 0.9) -> Tensor:
    r"""Centre of the teacher's scores after one more step (DINO).

    .. math:: c \leftarrow m \, c + (1 - m) \operatorname{mean}_{g, n} t_{gn}

    The mean runs over the rows of all ranks, so every rank must call it, after the loss.

    Args:
        center: Centre before, shape ``(K,)``.
        teacher_logits: Raw scores of this step, shape ``(rows, K)``.
        momentum: :math:`m` in [0, 1].

    Returns:
        The new centre; the old one where no rank has a row.

    Raises:
        ShapeError: if the numbers of prototypes differ.
        ValueError: if ``momentum`` is out of range.

    Reference:
        Caron et al., Emerging Properties in Self-Supervised Vision Transformers, arXiv:2104.14294, eq. 4.

    >>> import torch
    >>> moving_center(torch.zeros(2), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([0.2000, 0.3000])
    """
    check_between(momentum, "momentum", 0.0, 1.0)
    check_ndim(teacher_logits, "teacher_logits", "(rows, K)", at_least=2, at_most=2)
    _check_center(center, teacher_logits)
    rows = torch.full((1,), len(teacher_logits), dtype=center.dtype, device=center.device)
    total = all_sum(torch.cat((teacher_logits.to(center.dtype).sum(0), rows)))
    mean = torch.where(total[-1] > 0, total[:-1] / total[-1].clamp(min=1), center)
    return torch.lerp(mean, center, momentum)


@torch.no_grad()
def sinkhorn_assignment(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3, inplace: bool = False) -> Tensor:
    r"""Assign samples to prototypes so that all prototypes are used alike (Sinkhorn-Knopp).

    Starting from :math:`Q = e^{S / \epsilon}`, each iteration scales the prototypes to equal mass, then the samples.
    It is computed on numbers between 0 and 1, so no score is too large and no :math:`\epsilon` too small for float32.

    Args:
        scores: Similarity of samples and prototypes, shape ``(N, K)``. With several ranks each has its own samples; the
            prototypes' masses are summed over all of them, so every rank must call it, also one without samples.
        epsilon: Softness :math:`\epsilon > 0`, in units of the scores.
        iterations: Number of iterations, 1 or more; 3 in SwAV and DINOv2, 10 in DISCOVR.
        inplace: Write the assignment over ``scores`` (float32 or better): no second matrix is needed.

    Returns:
        Assignment of each sample, shape ``(N, K)``, rows summing to 1, float32 or better, without gradient.

    Raises:
        ShapeError: if ``scores`` is no matrix of floating-point numbers.
        ValueError: if ``epsilon`` is not above 0 or ``iterations`` is less than 1.
        NonFiniteError: if ``scores`` holds NaN or infinity (CPU).

    Reference:
        Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, arXiv:2006.09882,
        section 3.1; Cuturi, Sinkhorn Distances, arXiv:1306.0895.

    >>> import torch
    >>> sinkhorn_assignment(torch.tensor([[1.0, 0.9], [1.0, 0.1]]), epsilon=0.05, iterations=10).round()
    tensor([[0., 1.],
            [1., 0.]])
    """
    check_ndim(scores, "scores", "(N, K)", at_least=2, at_most=2)
    check_floating(scores, "scores")
    check_positive(epsilon, "epsilon")
    if iterations < 1:
        raise ValueError(f"iterations must be 1 or more, got {iterations!r}")
    logits = at_least_float32(scores)
    logits = logits.div_(epsilon) if inplace else logits / epsilon
    lowest = logits.new_full(logits.shape[1:], -math.inf)
    # relative to each prototype's best sample, then to each sample's best prototype: the first iteration undoes both,
    # and every sum below has a term of 1
    logits -= all_max(logits.amax(0) if len(logits) else lowest)
    best = logits.amax(1)
    assignment = logits.sub_(best.unsqueeze(1)).exp_()
    # an iteration reads the matrix twice and writes nothing: its scalings are vectors, applied at the end
    of_prototypes = all_sum(best.exp() @ assignment).reciprocal_()
    of_samples = (assignment @ of_prototypes).reciprocal_()
    for _ in range(iterations - 1):
        of_prototypes = all_sum(of_samples @ assignment).reciprocal_()
        of_samples = (assignment @ of_prototypes).reciprocal_()
    check_finite(of_samples, scores=scores)
    return assignment.mul_(of_prototypes).mul_(of_samples.unsqueeze(1))


def contrastive_representation_loss(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    student_memory: Tensor,
    teacher_memory: Tensor,
    indices: Tensor,
    *,
    student_normalizer: Tensor | float,
    teacher_normalizer: Tensor | float,
    temperature: float = 0.07,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Noise-contrastive estimation of which memory belongs to a sample, in both directions (CRD).

    .. math:: L = NCE\big(v_s M_t^\top\big) + NCE\big(v_t M_s^\top\big)

    The student's vector must tell the teacher's memory of its own sample from those of the negatives, and the teacher's
    vector the student's memory. Unlike elsewhere gradients flow into ``teacher_embeddings`` too: they are the output of
    an embedding that is trained beside the student. Detach its input, not its output; the module twin does.

    Args:
        student_embeddings: Embedded student vectors, shape ``(N, D)``; normalised here.
        teacher_embeddings: Embedded teacher vectors, shape ``(N, D)``; normalised here.
        student_memory: The student's vectors as last seen, one row of length 1 per sample of the data set, shape
            ``(M, D)``. No gradient.
        teacher_memory: The teacher's, same shape. No gradient.
        indices: Rows of the memories for each sample: its own first, then K negatives; integers ``(N, 1 + K)``.
        student_normalizer: Constant of the products with the teacher's memory, see :func:`contrast_normalizer`.
        teacher_normalizer: Constant of the products with the student's memory.
        temperature: Softness :math:`\tau > 0` of the products (unitless).
        reduction: ``"none"`` gives one value per sample, shape ``(N,)``.

    Returns:
        Loss in nats per sample, summed over its 1 + K decisions and both directions.

    Raises:
        ShapeError: if shapes or devices do not fit together.
        TargetError: if ``indices`` is not of an integer type or outside the memories (CPU).
        ValueError: if ``temperature`` is not above 0 or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the embeddings that hold NaN or infinity.

    Reference:
        Tian et al., Contrastive Representation Distillation, arXiv:1910.10699, eq. 9-11 and section 3.4.

    >>> import torch
    >>> memory, indices = torch.eye(3), torch.tensor([[0, 1, 2]])
    >>> v = torch.tensor([[1.0, 0.0, 0.0]])
    >>> contrastive_representation_loss(v, v, memory, memory, indices, student_normalizer=3.0, teacher_normalizer=3.0)
    tensor(1.6219)
    """
    check_reduction(reduction)
    check_same_shape(
        student_embeddings, teacher_embeddings, "student_embeddings", "teacher_embeddings", "embed both to one width"
    )
    check_same_shape(student_memory, teacher_memory, "student_memory", "teacher_memory", "both have a row per sample")
    _check_contrast(student_embeddings, teacher_memory, indices, temperature, "student_embeddings")
    _check_contrast(teacher_embeddings, student_memory, indices, temperature, "teacher_embeddings")
    directions = (
        (student_embeddings, teacher_memory, student_normalizer),
        (teacher_embeddings, student_memory, teacher_normalizer),
    )
    with without_autocast(student_embeddings):
        per_sample: Tensor = sum(
            _NoiseContrast.apply(*in_one_precision(unit_vectors(vectors), memory.detach()), indices, z, temperature)
            for vectors, memory, z in directions
        )
    loss = reduce_loss(per_sample, reduction)
    check_finite(loss, student_embeddings=student_embeddings, teacher_embeddings=teacher_embeddings)
    return loss


def contrast_logits(
    embeddings: Tensor, memory: Tensor, indices: Tensor, *, temperature: float = 0.07, name: str = "student_embeddings"
) -> Tensor:
    r"""Products of normalised vectors with chosen rows of a memory, over the temperature (CRD).

    Args:
        embeddings: Shape ``(N, D)``; normalised here.
        memory: Shape ``(M, D)``. No gradient.
        indices: Rows of the memory for each vector, integers ``(N, 1 + K)``.
        temperature: :math:`\tau > 0`.
        name: What ``embeddings`` is called in messages.

    Returns:
        :math:`v \cdot m / \tau`, shape ``(N, 1 + K)``.

    Raises:
        ShapeError: if shapes or devices do not fit together.
        TargetError: if ``indices`` is not of an integer type or outside the memory (CPU).
        ValueError: if ``temperature`` is not above 0.

    >>> import torch
    >>> contrast_logits(torch.tensor([[2.0, 0.0]]), torch.eye(2), torch.tensor([[1, 0]]), temperature=0.5)
    tensor([[0., 2.]])
    """
    _check_contrast(embeddings, memory, indices, temperature, name)
    with without_autocast(embeddings):
        vectors, known = in_one_precision(unit_vectors(embeddings), memory.detach())
        parts = [_products(vectors[rows], known, indices[rows])[0] for rows in _parts(known, indices)]
    return torch.cat(parts) / temperature


@torch.no_grad()
def contrast_normalizer(logits: Tensor, *, num_samples: int) -> Tensor:
    r"""Constant that makes the products of a batch probabilities over the data set (CRD).

    .. math:: Z = M \operatorname{mean}_{n, k} e^{v \cdot m / \tau}

    CRD estimates it on the first batch and keeps it. The mean runs over the samples of all ranks, so every rank must
    call it.

    Args:
        logits: Of :func:`contrast_logits`, shape ``(N, 1 + K)``.
        num_samples: Number M of samples in the data set.

    Returns:
        A scalar; zero where no rank has a sample.

    >>> import torch
    >>> contrast_normalizer(torch.zeros(2, 3), num_samples=10)
    tensor(10.)
    """
    total = torch.stack((logits.exp().sum(dtype=torch.float64), logits.new_tensor(logits.numel(), dtype=torch.float64)))
    total = all_sum(total)
    return (num_samples * total[0] / total[1].clamp(min=1)).to(logits.dtype)


@torch.no_grad()
def moving_memory(memory: Tensor, ids: Tensor, embeddings: Tensor, *, momentum: float = 0.5) -> Tensor:
    r"""Rows of a memory after one more step (CRD).

    .. math:: m_i \leftarrow \frac{\mu \, m_i + (1 - \mu) \, v_i}{\| \mu \, m_i + (1 - \mu) \, v_i \|}

    Args:
        memory: Shape ``(M, D)``.
        ids: Rows that were seen, integers ``(N,)``.
        embeddings: Their vectors, shape ``(N, D)``; normalised here.
        momentum: :math:`\mu` in [0, 1].

    Returns:
        The new rows, shape ``(N, D)``; the memory is left as it is.

    >>> import torch
    >>> moving_memory(torch.eye(2), torch.tensor([1]), torch.tensor([[5.0, 0.0]]))
    tensor([[0.7071, 0.7071]])
    """
    check_between(momentum, "momentum", 0.0, 1.0)
    vectors = unit_vectors(embeddings).to(memory.dtype)
    return unit_vectors(momentum * memory[ids] + (1 - momentum) * vectors)


def contrast_negatives(
    ids: Tensor,
    num_samples: int,
    num_negatives: int,
    *,
    draw: int | Tensor,
    seed: int = 0,
    labels: Tensor | None = None,
) -> Tensor:
    """Rows for CRD: each sample itself, then negatives drawn at random with replacement.

    A negative is a function of the seed, the draw, the sample and its place in the row, and of nothing else: it does
    not depend on the rest of the batch, the number of processes or the device, and no generator has to be saved.

    Args:
        ids: Samples, integers ``(N,)`` in ``[0, num_samples)``.
        num_samples: Number M of samples in the data set.
        num_negatives: Number K of negatives for each.
        draw: Number of the draw; another number gives other negatives.
        seed: Another seed gives another sequence of draws.
        labels: Class of each sample, integers ``(M,)``: negatives then come from the other classes only. A negative
            number marks a class that is not known, taken for one that is nobody's. Default: any other sample.

    Returns:
        Integers ``(N, 1 + K)``.

    Raises:
        TargetError: if all samples have one class (CPU), so that there is no negative.

    >>> import torch
    >>> contrast_negatives(torch.tensor([1]), 2, 3, draw=0)
    tensor([[1, 0, 0, 0]])
    """
    device = ids.device
    key = _mixed(_mixed(torch.as_tensor(seed, device=device)) ^ torch.as_tensor(draw, device=device))
    key = _mixed(key ^ ids)
    noise = _mixed(key.unsqueeze(1) ^ torch.arange(num_negatives, device=device))
    if labels is None:
        # the gap that a sample leaves in the numbers of the others
        start, width = ids, torch.ones_like(ids)
    else:
        order = labels.argsort(stable=True)
        ordered, own = labels[order], labels[ids]
        start = torch.searchsorted(ordered, own)
        width = torch.searchsorted(ordered, own, right=True) - start
    span = num_samples - width
    if reads_at_once(span) and bool((span <= 0).any()):
        raise TargetError(
            f"there is no sample of another class to contrast with: all {num_samples} samples have the class "
            f"{int(own[0]) if labels is not None else 0}; use negatives='relax'"
        )
    place = noise.mul_(span.unsqueeze(1)).bitwise_right_shift_(32)
    place += (place >= start.unsqueeze(1)) * width.unsqueeze(1)
    negatives = place if labels is None else order[place]
    return torch.cat((ids.unsqueeze(1), negatives), dim=1)


def _check_contrast(embeddings: Tensor, memory: Tensor, indices: Tensor, temperature: float, name: str) -> None:
    check_positive(temperature, "temperature")
    check_ndim(embeddings, name, "(N, D)", at_least=2, at_most=2)
    check_floating(embeddings, name)
    if memory.ndim != 2 or memory.shape[1] != embeddings.shape[1]:
        raise ShapeError(
            f"{name} and the memory must have one width, got {tuple(embeddings.shape)} and {tuple(memory.shape)}: "
            "embed both models to the width of the memory"
        )
    check_same_device(embeddings, memory, name, "the memory")
    if indices.ndim != 2 or len(indices) != len(embeddings) or indices.shape[1] < 2:
        raise ShapeError(
            f"indices must name a row of the memory for the sample itself and each negative, shape "
            f"({len(embeddings)}, 1 + K), got {tuple(indices.shape)} with {name} of shape {tuple(embeddings.shape)}"
        )
    check_rows(indices, memory.shape[0], "indices")


def check_dino(student_temperature: float, teacher_temperature: float, teacher_views: int) -> None:
    """Raise ``ValueError`` unless both temperatures are above 0 and the teacher sees a view."""
    check_positive(student_temperature, "student_temperature")
    check_positive(teacher_temperature, "teacher_temperature")
    if teacher_views < 1:
        raise ValueError(f"teacher_views must be 1 or more, got {teacher_views!r}")


def check_rows(ids: Tensor, rows: int, name: str) -> None:
    """Raise :class:`TargetError` unless ``ids`` holds integers in ``[0, rows)``; the range is read on the CPU only."""
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise TargetError(f"{name} must hold integers, got {ids.dtype}: pass the samples' positions in the data set")
    if ids.numel() and reads_at_once(ids):
        low, high = (int(bound) for bound in ids.aminmax())
        if low < 0 or high >= rows:
            raise TargetError(
                f"{name} must lie between 0 and {rows - 1}, since the memory has {rows} rows, got "
                f"{low if low < 0 else high}: set num_samples to the size of the data set"
            )


def _mixed(x: Tensor) -> Tensor:
    """A 32-bit mixing function on non-negative integers: two odd multipliers below 2^31, so that int64 never overflows.

    Multipliers and shifts are those of a search by C. Wellons for low bias.
    """
    x = x & 0xFFFFFFFF
    x ^= x >> 16
    x.mul_(0x21F0AAAD).bitwise_and_(0xFFFFFFFF)
    x ^= x >> 15
    x.mul_(0x735A2D97).bitwise_and_(0xFFFFFFFF)
    x ^= x >> 15
    return x


class _NoiseContrast(torch.autograd.Function):
    """Negative log-likelihood of telling a sample's own row from the rest, with the gradient from the forward pass.

    What it holds for the backward pass is the size of the vectors, not that of the products, and does not depend on the
    memory, which may move on in between.
    """

    @staticmethod
    def forward(
        ctx: Any, vectors: Tensor, memory: Tensor, indices: Tensor, normalizer: Tensor | float, temperature: float
    ) -> Tensor:
        count, columns = indices.shape
        noise = (columns - 1) / memory.shape[0]
        floor = noise + _NOISE_EPSILON
        # ln(h / (h + floor)) and ln(noise / (h + floor)) with h = exp(logit) / Z, in logarithms: h may be any size
        shift = torch.as_tensor(normalizer, dtype=vectors.dtype, device=vectors.device).log() + math.log(floor)
        values = vectors.new_zeros(count)
        of_vectors = torch.zeros_like(vectors)
        for rows in _parts(memory, indices):
            products, picked = _products(vectors[rows], memory, indices[rows])
            odds = products.div_(temperature).sub_(shift)
            missed = softplus(odds[:, 1:]).sum(1) + (columns - 1) * math.log(floor / noise)
            values[rows] = softplus(-odds[:, 0]) + missed
            slope = odds.sigmoid_()
            slope[:, 0] -= 1
            slope /= temperature
            if picked is None:
                spread = slope.new_zeros(len(slope), memory.shape[0]).scatter_add_(1, indices[rows], slope)
                of_vectors[rows] = spread @ memory
            else:
                of_vectors[rows] = torch.einsum("nk,nkd->nd", slope, picked)
        ctx.save_for_backward(of_vectors)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise LimbeckError(
                "contrastive_representation_loss cannot be differentiated twice: call backward without "
                "create_graph=True"
            )
        (of_vectors,) = ctx.saved_tensors
        return of_vectors * gradient.unsqueeze(1), None, None, None, None


def _products(vectors: Tensor, memory: Tensor, indices: Tensor) -> tuple[Tensor, Tensor | None]:
    """Products of vectors with chosen rows, and the rows themselves where they were copied out."""
    if _multiplies_all(memory, indices):
        return (vectors @ memory.T).gather(1, indices), None
    picked = memory[indices]
    return torch.einsum("nd,nkd->nk", vectors, picked), picked


def _multiplies_all(memory: Tensor, indices: Tensor) -> bool:
    return memory.shape[0] <= _DENSE_UP_TO * indices.shape[1]


def _parts(memory: Tensor, indices: Tensor) -> list[slice]:
    """Samples to treat at once, so that neither products nor copied rows take more than some hundred megabytes."""
    count, columns = indices.shape
    entries = memory.shape[0] if _multiplies_all(memory, indices) else columns * memory.shape[1]
    size = max(1, _ENTRIES_AT_ONCE // entries)
    return [slice(start, min(start + size, count)) for start in range(0, max(count, 1), size)]


class _AcrossViews(torch.autograd.Function):
    """Sum over pairs of views of the cross-entropy, shape (N,), one view of the student at a time."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, p_teacher: Tensor, skip_same_view: bool) -> Tensor:
        values = student.new_zeros(student.shape[1])
        slope = torch.empty_like(student)
        for view, (target, pairs) in enumerate(_targets(len(student), p_teacher, skip_same_view)):
            values -= (log_softmax(student[view], dim=1) * target).sum(1)
            # not the exponential of the logarithm: where that underflows, it takes six times as long on a CPU
            slope[view] = student[view].softmax(1).mul_(pairs).sub_(target)
        ctx.skip_same_view = skip_same_view
        ctx.save_for_backward(student, p_teacher, slope)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        student, p_teacher, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative needs the slope as a function of the student
            targets = _targets(len(student), p_teacher, ctx.skip_same_view)
            views = zip(student, targets, strict=True)
            slope = torch.stack([view.softmax(1) * pairs - target for view, (target, pairs) in views])
        return slope * gradient.unsqueeze(1), None, None


def _targets(views: int, p_teacher: Tensor, skip_same_view: bool) -> list[tuple[Tensor, int]]:
    """For each view of the student, the sum of the teacher's distributions it is held against, and their number."""
    everyone = p_teacher.sum(0)
    count = len(p_teacher)
    if not skip_same_view:
        return [(everyone, count)] * views
    own = [(_sum_without(p_teacher, view), count - 1) for view in range(min(views, count))]
    return [*own, *[(everyone, count)] * (views - len(own))]


def _sum_without(views: Tensor, left_out: int) -> Tensor:
    """Sum over the first axis without one entry; zeros where nothing else is there."""
    kept = [view for index, view in enumerate(views) if index != left_out]
    return sum(kept[1:], start=kept[0]) if kept else torch.zeros_like(views[0])


def _check_views(
    student_logits: Tensor, teacher_logits: Tensor, teacher_views: int, skip_same_view: bool
) -> tuple[int, int]:
    """Check the rows of both sides; return the student's number of views and the number of pairs."""
    for logits, name in ((student_logits, "student_logits"), (teacher_logits, "teacher_logits")):
        check_ndim(logits, name, "(views * N, K)", at_least=2, at_most=2)
        check_floating(logits, name)
    check_same_device(student_logits, teacher_logits, "student_logits", "teacher_logits")
    rows, shapes = len(student_logits), f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
    if student_logits.shape[1] != teacher_logits.shape[1]:
        raise ShapeError(
            f"student_logits and teacher_logits must score the same prototypes, got {shapes}: give both heads one size"
        )
    images, rest = divmod(len(teacher_logits), teacher_views)
    if rest or (rows % images if images else rows):
        raise ShapeError(
            f"student_logits and teacher_logits must hold whole views of the same images, {teacher_views} of the "
            f"teacher's, got {shapes}: stack them view by view, or set teacher_views"
        )
    views = rows // images if images else teacher_views
    pairs = teacher_views * views - (min(views, teacher_views) if skip_same_view else 0)
    if pairs < 1:
        raise ShapeError(
            f"no pair of different views is left of student_logits and teacher_logits of shape {shapes} with "
            f"{teacher_views} views of the teacher: give the student more views, or set skip_same_view=False"
        )
    return views, pairs


def _check_center(center: Tensor | None, logits: Tensor) -> None:
    if center is not None and center.shape != logits.shape[1:]:
        raise ShapeError(
            f"center must have one entry per prototype, shape {tuple(logits.shape[1:])}, got {tuple(center.shape)}: "
            "set the number of prototypes to the width of the heads"
        )
