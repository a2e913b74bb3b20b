"""The two losses of MDCS on the raw logits of all experts, shape ``(N, E, C)``: samples, experts, classes.

The class prior enters here and only here; at test time the raw logits are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from limbeck_core.checks import (
    check_finite,
    check_floating,
    check_ndim,
    check_positive,
    check_same_shape,
    check_target,
)
from limbeck_core.errors import DataError, ShapeError
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss

EXPONENTS = (-0.5, 1.0, 2.5)  # of the prior: towards frequent classes, balanced, towards rare ones
_LISTED = 10  # absent classes named in one message


def check_class_counts(class_counts: Sequence[int]) -> None:
    """Raise :class:`~limbeck_core.errors.DataError` unless every class has a training image.

    A class without one has a prior of zero, whose logarithm would make its logits infinite.

    Args:
        class_counts: Training images of each class.
    """
    absent = [label for label, count in enumerate(class_counts) if not (math.isfinite(count) and count >= 1)]
    if len(class_counts) < 2 or absent:
        named = ", ".join(map(str, absent[:_LISTED]))
        raise DataError(
            f"class_counts must hold a count of 1 or more for each of two or more classes, got {len(class_counts)} "
            + (f"classes, of which {len(absent)} have none: {named}" if absent else "classes")
            + ". Lower the imbalance of the long tail, leave absent classes out, or count them as 1"
        )


def prior_offsets(class_counts: Sequence[int], *, exponents: Sequence[float] = EXPONENTS) -> Tensor:
    r"""Return what is added to the logits of each expert, :math:`\lambda_e \log n_c`.

    Counts need not be normalised, since a constant does not change a softmax. The logarithm is multiplied rather than
    taken of a power, which would overflow in half precision.

    Args:
        class_counts: Training images of each class, all 1 or more.
        exponents: :math:`\lambda_e` of each expert. 0 is plain cross-entropy, 1 balanced softmax; larger ones favour
            rare classes, negative ones frequent classes. Paper: -0.5, 1 and 2.5 on every data set.

    Returns:
        Shape ``(E, C)``, float64.

    Raises:
        DataError: if a class has no training image.

    Reference:
        Zhao et al., MDCS: More Diverse Experts with Consistency Self-distillation for Long-tailed Recognition,
        arXiv:2308.09922, section 3.2 (diversity loss).

    >>> prior_offsets([100, 1], exponents=[1.0])
    tensor([[4.6052, 0.0000]], dtype=torch.float64)
    """
    check_class_counts(class_counts)
    counts = torch.tensor([float(count) for count in class_counts], dtype=torch.float64)
    return torch.outer(torch.tensor(list(exponents), dtype=torch.float64), counts.log())


def diverse_experts_loss(
    expert_logits: Tensor, target: Tensor, *, offsets: Tensor, reduction: Reduction = "mean"
) -> Tensor:
    r"""Cross-entropy of every expert under a class prior of its own (diversity loss).

    .. math:: L = \sum_e CE(z^e + \lambda_e \log n, \; y)

    Args:
        expert_logits: Raw scores, shape ``(V * N, E, C)``: V views of N samples, all samples of one view before the
            next view. There is no teacher.
        target: Class indices, shape ``(N,)``; every view has the same.
        offsets: :func:`prior_offsets`, shape ``(E, C)``.
        reduction: Over the rows: ``"none"`` gives shape ``(V * N,)``.

    Returns:
        Loss in nats, summed over experts.

    Raises:
        ShapeError: if shapes do not fit, with the numbers of experts and classes.
        TargetError: if a label is out of range.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming ``expert_logits``.

    Reference:
        Zhao et al., arXiv:2308.09922, section 3.2.

    >>> diverse_experts_loss(torch.zeros(2, 3, 4), torch.tensor([0, 1]), offsets=torch.zeros(3, 4))  # 3 log 4
    tensor(4.1589)
    """
    adjusted = _adjusted(expert_logits, offsets, "expert_logits")
    check_reduction(reduction)
    labels = _labels(target, adjusted, "expert_logits")
    flat = cross_entropy(adjusted.flatten(0, 1), labels.repeat_interleave(adjusted.shape[1]), reduction="none")
    loss = reduce_loss(flat.reshape(adjusted.shape[:2]).sum(1), reduction)
    check_finite(loss, expert_logits=expert_logits)
    return loss


def confident_instances(expert_logits: Tensor, target: Tensor, *, offsets: Tensor) -> Tensor:
    """Return which samples each expert classifies rightly under its prior (confident instance sampling).

    Args:
        expert_logits: Raw scores, shape ``(N, E, C)``.
        target: Class indices, shape ``(N,)``.
        offsets: :func:`prior_offsets`, shape ``(E, C)``.

    Returns:
        Boolean, shape ``(N, E)``.

    Raises:
        ShapeError: if shapes do not fit.
        TargetError: if a label is out of range.

    >>> confident_instances(torch.tensor([[[2.0, 0.0], [0.0, 2.0]]]), torch.tensor([0]), offsets=torch.zeros(2, 2))
    tensor([[ True, False]])
    """
    adjusted = _adjusted(expert_logits.detach(), offsets, "expert_logits")
    return adjusted.argmax(-1) == _labels(target, adjusted, "expert_logits").unsqueeze(1)


def confident_consistency_loss(
    student_expert_logits: Tensor,
    teacher_expert_logits: Tensor,
    target: Tensor,
    *,
    offsets: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    r"""Divergence from each expert's weak view to its strong view, over the samples it has right (consistency).

    .. math::

        L = \tau^2 \sum_e \frac{1}{|C_e|} \sum_{i \in C_e} KL\big(\sigma(a^e_i/\tau) \,\|\, \sigma(b^e_i/\tau)\big),
        \qquad C_e = \{ i : \arg\max_k a^e_{ik} = y_i \}

    with :math:`a = z + \lambda \log n` of the weak view and :math:`b` the same of the strong view. An expert that has
    no sample right adds nothing. There is no ``reduction``: each expert's mean is over samples of its own.

    Args:
        student_expert_logits: Raw scores of the strong views, shape ``(N, E, C)``.
        teacher_expert_logits: Raw scores of the weak views by the same experts. Gradients never flow into it.
        target: Class indices, shape ``(N,)``.
        offsets: :func:`prior_offsets`, shape ``(E, C)``.
        temperature: Softness of both distributions, above 0. Paper: 1.

    Returns:
        Loss in nats, summed over experts; a scalar. Paper: weight 0.6 after a linear warm-up of 20 epochs.

    Raises:
        ShapeError: if shapes do not fit.
        TargetError: if a label is out of range.
        ValueError: if ``temperature <= 0``.
        NonFiniteError: if the loss is not finite (CPU), naming the logits.

    Reference:
        Zhao et al., arXiv:2308.09922, section 3.3 (consistency self-distillation with confident instance sampling).
        Which samples are right is judged on the adjusted logits, as the released code does.

    >>> z = torch.tensor([[[2.0, 0.0]]])
    >>> confident_consistency_loss(z, z, torch.tensor([0]), offsets=torch.zeros(1, 2))
    tensor(0.)
    """
    check_positive(temperature, "temperature")
    student = _adjusted(student_expert_logits, offsets, "student_expert_logits")
    check_same_shape(
        student_expert_logits,
        teacher_expert_logits,
        "student_expert_logits",
        "teacher_expert_logits",
        hint="both are views of the same samples by the same experts",
    )
    teacher = _adjusted(teacher_expert_logits.detach(), offsets, "teacher_expert_logits")
    chosen = confident_instances(teacher_expert_logits, target, offsets=offsets)
    log_student = log_softmax(student / temperature, dim=-1)
    log_teacher = log_softmax(teacher / temperature, dim=-1)
    divergence = kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)
    kept = torch.where(chosen, divergence, torch.zeros_like(divergence)).sum(0)
    loss: Tensor = temperature**2 * (kept / chosen.sum(0).clamp_min(1)).sum()
    inputs = {"student_expert_logits": student_expert_logits, "teacher_expert_logits": teacher_expert_logits}
    # a row that is not chosen reaches no loss, but it is no less broken
    check_finite(divergence, **inputs)
    return loss


class _WithPrior(nn.Module):
    """What both losses share: the offsets of the experts, as a buffer that is computed, not saved."""

    offsets: Tensor

    def __init__(self, class_counts: Sequence[int], exponents: Sequence[float]) -> None:
        super().__init__()
        self.class_counts = tuple(int(count) for count in class_counts)
        self.exponents = tuple(float(exponent) for exponent in exponents)
        offsets = prior_offsets(self.class_counts, exponents=self.exponents)
        self.register_buffer("offsets", offsets.float(), persistent=False)


class DiverseExpertsLoss(_WithPrior):
    """Module twin of :func:`diverse_experts_loss`.

    Args:
        class_counts: Training images of each class, all 1 or more (``class_counts`` of the training set).
        exponents: Exponent of the prior of each expert.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over rows.

    Raises:
        DataError: if a class has no training image.
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(
        self, class_counts: Sequence[int], *, exponents: Sequence[float] = EXPONENTS, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(class_counts, exponents)
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, expert_logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return diverse_experts_loss(expert_logits, target, offsets=self.offsets, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"classes={len(self.class_counts)}, exponents={self.exponents}, reduction={self.reduction!r}"


class ConfidentConsistencyLoss(_WithPrior):
    """Module twin of :func:`confident_consistency_loss`.

    Args:
        class_counts: Training images of each class, all 1 or more.
        exponents: Exponent of the prior of each expert.
        temperature: Softness of both distributions, above 0.

    Raises:
        DataError: if a class has no training image.
        ValueError: if ``temperature <= 0``.
    """

    def __init__(
        self, class_counts: Sequence[int], *, exponents: Sequence[float] = EXPONENTS, temperature: float = 1.0
    ) -> None:
        super().__init__(class_counts, exponents)
        check_positive(temperature, "temperature")
        self.temperature = temperature

    def forward(self, student_expert_logits: Tensor, teacher_expert_logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return confident_consistency_loss(
            student_expert_logits,
            teacher_expert_logits,
            target,
            offsets=self.offsets,
            temperature=self.temperature,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"classes={len(self.class_counts)}, exponents={self.exponents}, temperature={self.temperature}"


def _adjusted(logits: Tensor, offsets: Tensor, name: str) -> Tensor:
    """Add the prior, in float32 or better."""
    check_ndim(logits, name, "(N, experts, classes)", at_least=3, at_most=3)
    check_floating(logits, name)
    if logits.shape[1:] != offsets.shape:
        raise ShapeError(
            f"{name} must have shape (N, {offsets.shape[0]}, {offsets.shape[1]}), an expert for each of "
            f"{offsets.shape[0]} exponents and a class for each of {offsets.shape[1]} counts, got "
            f"{tuple(logits.shape)}: give class_counts of this data set, and as many exponents as the model has experts"
        )
    raised = at_least_float32(logits)
    return raised + offsets.to(raised)


def _labels(target: Tensor, logits: Tensor, name: str) -> Tensor:
    """The label of every row, where rows are several views of the samples."""
    rows, samples = len(logits), len(target)
    if target.ndim != 1 or (rows % samples if samples else rows):
        raise ShapeError(
            f"target must have shape (N,) with rows of {name} {tuple(logits.shape)} a multiple of N, got "
            f"{tuple(target.shape)}"
        )
    labels = target.repeat(rows // samples) if samples else target
    check_target(labels, logits[:, 0])
    return labels.long()
