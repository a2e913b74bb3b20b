"""Losses on distributions over a vocabulary: what the student says of each next token against what the teacher says.

They take raw logits of shape ``(..., V)`` with the vocabulary on the LAST axis, as language models give them (the
losses of :mod:`limbeck_core.functional.logits` have the classes on axis 1), work in float32 or better, detach the
teacher, and give a differentiable zero when no token counts.

Where one model has more logits than the other, both share the ids of the smaller one and the rest is padding: the
padding is given minus infinity, that is, cut off, and each distribution is normalised over the shared ids. Models whose
tokenisers differ cannot be compared this way.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from limbeck_core.checks import (
    check_between,
    check_finite,
    check_floating,
    check_ndim,
    check_positive,
    check_same_device,
)
from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import all_finite, at_least_float32, in_one_precision, reads_at_once
from limbeck_core.functional.reduction import Reduction, blank_masked, check_reduction, reduce_loss


def generalized_jsd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
    vocabulary_size: int | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Generalised Jensen-Shannon divergence between the tokens of student and teacher (GKD).

    .. math::

        L = \beta \, KL(p_t \,\|\, m) + (1 - \beta) \, KL(p_s \,\|\, m), \qquad
        m = \beta p_t + (1 - \beta) p_s, \quad p = \sigma(z/\tau)

    The ends are set apart, for the formula falls to zero there: :math:`\beta = 0` is the forward divergence
    :math:`KL(p_t \,\|\, p_s)`, which covers all that the teacher does, and :math:`\beta = 1` the reverse divergence
    :math:`KL(p_s \,\|\, p_t)`, which keeps the student to what the teacher does most. So the loss is not continuous in
    :math:`\beta`: near 0 it shrinks in proportion to :math:`\beta`.

    An id banned (minus infinity) by both models costs nothing. The forward divergence is infinite where the student
    alone bans an id, the reverse one where the teacher alone does; between the ends the loss stays below log 2.

    Args:
        student_logits: Raw scores, shape ``(..., V)``, for example ``(B, L, V)``; the vocabulary is the last axis.
        teacher_logits: Same shape but for V, which may differ (see above). Gradients never flow into it.
        beta: Weight :math:`\beta` of the teacher in the mixture, from 0 to 1.
        temperature: Softness :math:`\tau > 0` of both distributions (unitless).
        vocabulary_size: How many ids, counted from 0, are real; later ones are padding for both models. Default: the
            smaller V.
        mask: Tokens that count, shape ``(...)`` without the vocabulary; boolean or weights. Default: all. For labels
            ``(B, L)`` with -100 on the prompt, the position that predicts a counted label is the one before it:
            ``mask[:, :-1] = labels[:, 1:] != -100``, and nothing follows the last.
        reduction: ``"none"`` gives one value per token, shape ``(...)``; ``"mean"`` is over the counted tokens of the
            batch, ``"sum"`` over the same. With gradient accumulation, sum and divide by all the tokens of the step.

    Returns:
        Loss in nats. It is not scaled by :math:`\tau^2`, as GKD defines it; for Hinton's scale multiply the weight.

    Raises:
        ShapeError: if shapes but for V, or devices, differ, or fewer than two ids are shared.
        ValueError: if ``beta`` is outside ``[0, 1]``, ``temperature <= 0``, ``vocabulary_size`` is larger than a V, or
            ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the logits that hold NaN or infinity.

    Reference:
        Agarwal et al., On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes,
        arXiv:2306.13649, section 2.

    >>> import torch
    >>> generalized_jsd_loss(torch.tensor([[50.0, 0.0]]), torch.tensor([[0.0, 50.0]]))  # disjoint: log 2
    tensor(0.6931)
    """
    for logits, name in ((student_logits, "student_logits"), (teacher_logits, "teacher_logits")):
        check_ndim(logits, name, "(..., V) with at least one leading axis", at_least=2)
        check_floating(logits, name)
    if student_logits.shape[:-1] != teacher_logits.shape[:-1]:
        raise ShapeError(
            f"student_logits and teacher_logits must have one shape but for the vocabulary on the last axis, got "
            f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}: feed both models the same tokens"
        )
    check_same_device(student_logits, teacher_logits, "student_logits", "teacher_logits")
    check_beta(beta)
    check_positive(temperature, "temperature")
    check_reduction(reduction)
    shared = shared_vocabulary(student_logits.shape[-1], teacher_logits.shape[-1], vocabulary_size)
    student = blank_masked(_first(student_logits, shared), mask, dim=-1)
    teacher = blank_masked(_first(teacher_logits.detach(), shared), mask, dim=-1)
    log_student, log_teacher = _log_softened(student, temperature), _log_softened(teacher, temperature)
    loss = reduce_loss(_per_token(log_student, log_teacher, beta), reduction, mask=mask)
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss


def check_beta(beta: float) -> None:
    """Raise ``ValueError`` unless the teacher's weight in the mixture lies between 0 and 1."""
    check_between(beta, "beta", 0.0, 1.0)


def shared_vocabulary(student_size: int, teacher_size: int, vocabulary_size: int | None) -> int:
    """Return how many ids both models share: the smaller vocabulary, or ``vocabulary_size`` if that is given.

    Raises:
        ValueError: if ``vocabulary_size`` is larger than one of the two.
        ShapeError: if fewer than two ids are shared.
    """
    smaller = min(student_size, teacher_size)
    shared = smaller if vocabulary_size is None else vocabulary_size
    if shared > smaller:
        raise ValueError(
            f"vocabulary_size must be at most the smaller vocabulary, {smaller} (student {student_size}, teacher "
            f"{teacher_size}), got {shared}"
        )
    if shared < 2:
        raise ShapeError(
            f"student and teacher must share at least 2 ids, got vocabularies of {student_size} and {teacher_size}"
            + ("" if vocabulary_size is None else f" and vocabulary_size={vocabulary_size}")
        )
    return shared


def _first(logits: Tensor, shared: int) -> Tensor:
    """The first ``shared`` ids; a slice of everything would still cost a copy of the gradient."""
    return logits if logits.shape[-1] == shared else logits[..., :shared]


def _log_softened(logits: Tensor, temperature: float) -> Tensor:
    logits = at_least_float32(logits)
    return log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)


def _per_token(log_student: Tensor, log_teacher: Tensor, beta: float) -> Tensor:
    """The divergence of each token, over the last axis."""
    log_student, log_teacher = in_one_precision(log_student, log_teacher)
    if reads_at_once(log_student):
        plain = _divergence(log_student, log_teacher, beta, guarded=False)
        if all_finite(plain):
            return plain
    return _divergence(log_student, log_teacher, beta, guarded=True)


def _divergence(log_student: Tensor, log_teacher: Tensor, beta: float, *, guarded: bool) -> Tensor:
    """The same; ``guarded`` keeps 0 * log 0 at zero in value and gradient."""
    if beta in (0, 1):
        p, ratio = (log_teacher if beta == 0 else log_student).exp(), log_student - log_teacher
        # filled before the product, whose gradient reads the ratio: 0 * NaN is NaN
        total = (p * (ratio.masked_fill(p == 0, 0.0) if guarded else ratio)).sum(-1)
        return total if beta == 1 else 0.0 - total
    tiny = torch.finfo(log_student.dtype).tiny
    if guarded:  # a finite floor far below the log of the smallest number
        log_student, log_teacher = (values.clamp_min(10 * math.log(tiny)) for values in (log_student, log_teacher))
    student, teacher = log_student.exp(), log_teacher.exp()
    log_mixture = torch.lerp(student, teacher, beta).clamp_min(tiny).log()
    return torch.lerp(student * (log_student - log_mixture), teacher * (log_teacher - log_mixture), beta).sum(-1)
