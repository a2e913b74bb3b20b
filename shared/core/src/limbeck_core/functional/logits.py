"""Losses on class scores: what the student says of each class against what the teacher says.

All of them take raw logits of shape ``(N, C)`` or ``(N, C, ...)`` with the classes on axis 1, work in float32 or
better, detach the teacher, and give a differentiable zero for an empty batch.

A logit of minus infinity bans a class. Banned for both models it costs nothing: it has no mass and gets no gradient.
Banned for the student alone, where the teacher has mass, it makes the divergence infinite, which is reported as
:class:`~limbeck_core.errors.NonFiniteError`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, logsigmoid, softmax

from limbeck_core.checks import (
    check_between,
    check_classes,
    check_finite,
    check_floating,
    check_logits,
    check_ndim,
    check_non_negative,
    check_positive,
    check_same_device,
    check_same_shape,
    check_target,
)
from limbeck_core.errors import ShapeError, TargetError
from limbeck_core.functional.precision import all_finite, at_least_float32, reads_at_once
from limbeck_core.functional.reduction import Reduction, blank_masked, check_reduction, reduce_loss

_CORRELATION_EPSILON = 1e-8  # DIST, in the denominator of the correlation
_RANK_EPSILON = 1e-6  # USKD, in the denominators 1 - p_y
_WEAK_LABEL_SMOOTHING = 0.1  # USKD, the labels of the weak head
_RATIO_EPSILON = 1e-7  # WSLD, in the denominator of the ratio of cross-entropies
_SUM_TOLERANCE = 1e-2  # a thousand bfloat16 probabilities sum to 1 within less


def kl_divergence_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Kullback-Leibler divergence from the softened teacher to the softened student (Hinton's KD).

    .. math:: L = \tau^2 \, KL\big(\sigma(z_t/\tau) \,\|\, \sigma(z_s/\tau)\big)

    Deep mutual learning (Zhang et al., arXiv:1706.00384) is this loss at temperature 1 in both directions, each peer
    once as the student.

    Args:
        student_logits: Raw scores, shape ``(N, C)`` or ``(N, C, ...)``; the class axis is 1.
        teacher_logits: Same shape. Gradients never flow into it.
        temperature: Softness :math:`\tau > 0` of both distributions (unitless). Paper: ``T``.
        mask: Positions that count, shape ``(N, ...)`` without the class axis; boolean or weights. Default: all.
        reduction: ``"none"`` gives one value per position, shape ``(N, ...)``; ``"mean"`` and ``"sum"`` reduce those.
            For ``(N, C)`` logits ``"mean"`` is what ``torch.nn.functional.kl_div`` calls ``"batchmean"``.

    Returns:
        Loss in nats, scaled by :math:`\tau^2` so that gradients keep their size when ``temperature`` changes.

    Raises:
        ShapeError: if shapes or devices differ, or there are fewer than two classes.
        ValueError: if ``temperature <= 0`` or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the logits that hold NaN or infinity.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531, section 2.

    >>> import torch
    >>> kl_divergence_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[2.0, 0.0]]), temperature=4.0)
    tensor(0.)
    """
    check_logits(student_logits, teacher_logits)
    check_positive(temperature, "temperature")
    check_reduction(reduction)
    student = blank_masked(student_logits, mask, dim=1)
    teacher = blank_masked(teacher_logits.detach(), mask, dim=1)
    per_position = _divergence(_log_softened(teacher, temperature), _log_softened(student, temperature))
    loss = reduce_loss(_rescaled(per_position, temperature), reduction, mask=mask)
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss


def soft_target_cross_entropy_loss(
    student_logits: Tensor,
    teacher_probabilities: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy of the softened student against a distribution over the classes.

    .. math:: L = - \tau^2 \sum_c q_c \, \log \sigma(z_s/\tau)_c

    The distribution :math:`q` may be a teacher's, a past self's (PS-KD, see :func:`progressive_target`), a mixture with
    the label, or a mixed-up label. For a teacher softened at the same temperature the gradient is that of
    :func:`kl_divergence_loss`; the value differs by the teacher's entropy and does not fall to zero.

    Args:
        student_logits: Raw scores, shape ``(N, C)`` or ``(N, C, ...)``; the class axis is 1.
        teacher_probabilities: Probabilities of the same shape that sum to 1 over axis 1. They are taken as they are:
            soften a teacher yourself, at the ``temperature`` given here. Gradients never flow into them.
        temperature: Softness :math:`\tau > 0` of the student's distribution (unitless).
        mask: Positions that count, shape ``(N, ...)`` without the class axis; boolean or weights. Default: all.
        reduction: ``"none"`` gives one value per position, shape ``(N, ...)``; ``"mean"`` and ``"sum"`` reduce those.

    Returns:
        Loss in nats, scaled by :math:`\tau^2`.

    Raises:
        ShapeError: if shapes or devices differ, or there are fewer than two classes.
        TargetError: if a row of ``teacher_probabilities`` has a negative entry or does not sum to 1 (CPU), which
            is what raw logits look like.
        ValueError: if ``temperature <= 0`` or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the tensor that holds NaN or infinity.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, arXiv:1503.02531, section 2; Kim et al.,
        Self-Knowledge Distillation with Progressive Refinement of Targets, arXiv:2006.12000, for soft targets that are
        blended with the label.

    >>> import torch
    >>> soft_target_cross_entropy_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.3, 0.7]]))
    tensor(0.6931)
    """
    _check_pair(student_logits, teacher_probabilities, "teacher_probabilities")
    check_positive(temperature, "temperature")
    check_reduction(reduction)
    student = blank_masked(student_logits, mask, dim=1)
    teacher = at_least_float32(blank_masked(teacher_probabilities.detach(), mask, dim=1))
    _check_probabilities(teacher, "teacher_probabilities", mask)
    per_position = _cross_entropy(teacher, _log_softened(student, temperature))
    loss = reduce_loss(_rescaled(per_position, temperature), reduction, mask=mask)
    check_finite(loss, student_logits=student_logits, teacher_probabilities=teacher_probabilities)
    return loss


def progressive_weight(epoch: int, epochs: int, *, final_weight: float = 0.8) -> float:
    r"""Return PS-KD's weight of the past prediction in an epoch, :math:`\alpha_e = \alpha_T (e + 1) / E`.

    Args:
        epoch: The epoch :math:`e`, counted from 0.
        epochs: How many epochs :math:`E` the run has.
        final_weight: The weight :math:`\alpha_T` in the last epoch, from 0 to 1. Paper: 0.8.

    Raises:
        ValueError: if ``epoch`` is not one of ``epochs``, or ``final_weight`` is outside ``[0, 1]``.

    Reference:
        Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, arXiv:2006.12000, section 3.

    >>> progressive_weight(149, 300)
    0.4
    """
    if not 0 <= epoch < epochs:
        raise ValueError(f"epoch must lie between 0 and epochs - 1 = {epochs - 1}, got {epoch}: epochs count from 0")
    check_between(final_weight, "final_weight", 0.0, 1.0)
    return final_weight * (epoch + 1) / epochs


def progressive_target(target: Tensor, past_probabilities: Tensor, *, past_weight: float) -> Tensor:
    r"""Blend the label with what the model predicted for the same sample an epoch ago (PS-KD).

    .. math:: t = (1 - \alpha) \, y + \alpha \, P

    The result goes into :func:`soft_target_cross_entropy_loss`. Since that loss is linear in its target, a task loss of
    weight :math:`1 - \alpha` plus a match on ``past_probabilities`` of weight :math:`\alpha` is the same thing.

    Args:
        target: Class indices of shape ``(N, ...)``, or soft labels of the shape of ``past_probabilities``.
        past_probabilities: The earlier softmax of each sample, shape ``(N, C)`` or ``(N, C, ...)``. For a sample
            without one, its one-hot label.
        past_weight: The share :math:`\alpha` of the past, from 0 to 1; see :func:`progressive_weight`.

    Returns:
        Soft target of the shape of ``past_probabilities``, without a graph.

    Raises:
        ShapeError: if shapes do not fit.
        TargetError: if a label is out of range.
        ValueError: if ``past_weight`` is outside ``[0, 1]``.

    Reference:
        Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, arXiv:2006.12000, section 3.

    >>> import torch
    >>> progressive_target(torch.tensor([1]), torch.tensor([[0.5, 0.5]]), past_weight=0.8)
    tensor([[0.4000, 0.6000]])
    """
    check_ndim(past_probabilities, "past_probabilities", "(N, C) or (N, C, ...)", at_least=2)
    check_floating(past_probabilities, "past_probabilities")
    check_between(past_weight, "past_weight", 0.0, 1.0)
    past = at_least_float32(past_probabilities.detach())
    if target.is_floating_point():
        check_same_shape(target, past, "target", "past_probabilities", hint="both are distributions over the classes")
        label = target.detach().to(past.dtype)
    else:
        check_target(target, past)
        label = torch.zeros_like(past).scatter(1, target.long().unsqueeze(1), 1.0)
    return torch.lerp(label, past, past_weight)


def decoupled_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float = 4.0,
    target_weight: float = 1.0,
    non_target_weight: float = 8.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Knowledge distillation with its target part and its non-target part weighted apart (DKD).

    .. math::

        L = \tau^2 \big[ \alpha \, KL(b_t \,\|\, b_s) + \beta \, KL(q_t \,\|\, q_s) \big], \qquad
        b = (p_y, 1 - p_y), \quad q_i = \frac{p_i}{1 - p_y} \; (i \ne y), \quad p = \sigma(z/\tau)

    Plain KD is :math:`\alpha = 1` with :math:`\beta` replaced by each sample's :math:`1 - p_{t,y}`. Both parts are
    computed from :math:`z_y` and the log-sum-exp of the other logits, so nothing underflows for a confident teacher.

    Args:
        student_logits: Raw scores, shape ``(N, C)`` or ``(N, C, ...)``; the class axis is 1.
        teacher_logits: Same shape. Gradients never flow into it.
        target: Class indices of shape ``(N, ...)``. Labels at masked positions are not read.
        temperature: Softness :math:`\tau > 0` of both distributions (unitless). Paper: 4 on CIFAR, 1 on ImageNet.
        target_weight: Weight :math:`\alpha` of the target part.
        non_target_weight: Weight :math:`\beta` of the non-target part. Paper: 8 for most CIFAR pairs (2 to 6 for some),
            0.5 to 2 on ImageNet.
        mask: Positions that count, shape ``(N, ...)`` without the class axis; boolean or weights. Default: all.
        reduction: ``"none"`` gives one value per position, shape ``(N, ...)``; ``"mean"`` and ``"sum"`` reduce those.

    Returns:
        Loss in nats, scaled by :math:`\tau^2`. The paper's warm-up over epochs is the schedule of a weight.

    Raises:
        ShapeError: if shapes or devices differ, or there are fewer than two classes.
        TargetError: if a label is out of range, or ``target`` holds soft labels, for which the split is not defined.
        ValueError: if ``temperature <= 0``, a weight is negative, or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the logits that hold NaN or infinity.

    Reference:
        Zhao et al., Decoupled Knowledge Distillation, arXiv:2203.08679, eq. 7.

    >>> import torch
    >>> z = torch.tensor([[2.0, 0.0, 1.0]])
    >>> decoupled_kd_loss(z, z, torch.tensor([0]))
    tensor(0.)
    """
    check_logits(student_logits, teacher_logits)
    check_positive(temperature, "temperature")
    check_non_negative(target_weight, "target_weight")
    check_non_negative(non_target_weight, "non_target_weight")
    check_reduction(reduction)
    index = _class_index(target, student_logits, mask).unsqueeze(1)
    student_margin, student_others = _split(blank_masked(student_logits, mask, dim=1), index, temperature)
    teacher_margin, teacher_others = _split(blank_masked(teacher_logits.detach(), mask, dim=1), index, temperature)
    # the two-class distribution of a margin m: log p = logsigmoid(m), log (1 - p) = logsigmoid(-m)
    target_part = _divergence(_two_classes(teacher_margin), _two_classes(student_margin))
    non_target_part = _guarded_divergence(teacher_others, student_others)
    per_position = (target_weight * target_part + non_target_weight * non_target_part) * temperature**2
    loss = reduce_loss(per_position, reduction, mask=mask)
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss


def normalized_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    non_target_weight: float = 1.5,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy to the teacher, split at the target, with the non-target part normalised (NKD).

    .. math::

        L = - p_{t,y} \log p_{s,y} - \gamma \tau^2 \sum_{i \ne y} q_{t,i} \log q_{s,i}

    where :math:`p = \sigma(z)` is taken without temperature and :math:`q` is the softmax of :math:`z/\tau` over the
    classes other than :math:`y`. Both parts are cross-entropies, so the loss does not fall to zero.

    Args:
        student_logits: Raw scores, shape ``(N, C)`` or ``(N, C, ...)``; the class axis is 1. With two classes the
            non-target part is constant zero.
        teacher_logits: Same shape. Gradients never flow into it.
        target: Class indices of shape ``(N, ...)``, or soft labels of the shape of the logits (mixup), of which the
            largest names the class. Labels at masked positions are not read.
        temperature: Softness :math:`\tau > 0` of the non-target distributions (unitless). Paper: 1 on ImageNet, 3 on
            CIFAR.
        non_target_weight: Weight :math:`\gamma` of the non-target part. Paper: 1.5 on ImageNet, 3.5 on CIFAR.
        mask: Positions that count, shape ``(N, ...)`` without the class axis; boolean or weights. Default: all.
        reduction: ``"none"`` gives one value per position, shape ``(N, ...)``; ``"mean"`` and ``"sum"`` reduce those.

    Returns:
        Loss in nats.

    Raises:
        ShapeError: if shapes or devices differ, or there are fewer than two classes.
        TargetError: if a label is out of range.
        ValueError: if ``temperature <= 0``, ``non_target_weight < 0``, or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the logits that hold NaN or infinity.

    Reference:
        Yang et al., From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss
        and Customized Soft Labels, arXiv:2303.13005, section 3.

    >>> import torch
    >>> normalized_kd_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]))  # 0.5 log 2
    tensor(0.3466)
    """
    check_logits(student_logits, teacher_logits)
    check_positive(temperature, "temperature")
    check_non_negative(non_target_weight, "non_target_weight")
    check_reduction(reduction)
    index = _class_index(target, student_logits, mask, soft_labels=True).unsqueeze(1)
    student = at_least_float32(blank_masked(student_logits, mask, dim=1))
    teacher = at_least_float32(blank_masked(teacher_logits.detach(), mask, dim=1))
    target_part = _cross_entropy(softmax(teacher, dim=1).gather(1, index), log_softmax(student, dim=1).gather(1, index))
    non_target_part = _guarded_cross_entropy(
        _log_others(teacher, index, temperature).exp(), _log_others(student, index, temperature)
    )
    per_position = target_part + non_target_weight * temperature**2 * non_target_part
    loss = reduce_loss(per_position, reduction, mask=mask)
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss


def customized_soft_label_loss(
    student_logits: Tensor,
    weak_logits: Tensor,
    target: Tensor,
    *,
    target_weight: float = 1.0,
    non_target_weight: float = 0.1,
    weak_weight: float = 0.005,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Self-distillation towards soft labels made from the student's own scores and a weak head's (USKD).

    .. math::

        L = - \alpha \sum_k P_k \log p_k - \beta \sum_{i \ne y} Z_i \log q_i
            - \mu \sum_i \tilde y_i \log \sigma(w)_i

    with :math:`p` the student's softmax, :math:`q` its softmax over the classes without label, :math:`P` from
    :func:`customized_target_labels`, :math:`Z` from :func:`zipf_soft_labels` over :func:`class_rank_scores`, and
    :math:`\tilde y` the label smoothed by 0.1. There is no teacher; :math:`P` and :math:`Z` carry no gradient, so the
    weak head learns from the last term alone.

    The rank is taken over the sum of the two heads' probabilities, as the paper words it; the released code adds a
    ratio of log-probabilities there, which ranks differently.

    Args:
        student_logits: Raw scores, shape ``(N, C)``.
        weak_logits: Raw scores of a linear layer on pooled features of a middle stage, same shape. Not detached: the
            gradient reaches the layer and the features through the last term.
        target: Class indices of shape ``(N,)``, or soft labels ``(N, C)`` (mixup), of which the two largest count; then
            at least three classes are needed.
        target_weight: Weight :math:`\alpha`. Paper: 1 on ImageNet, 0.1 on CIFAR.
        non_target_weight: Weight :math:`\beta`. Paper: 0.1.
        weak_weight: Weight :math:`\mu`. Paper: 0.005 on ImageNet, 0.1 on CIFAR.
        reduction: ``"none"`` gives one value per sample; ``"mean"`` and ``"sum"`` reduce those. :math:`P` uses a mean
            over the batch whatever the reduction.

    Returns:
        Loss in nats, to be added to the ordinary cross-entropy.

    Raises:
        ShapeError: if shapes or devices differ, or there are too few classes.
        TargetError: if a label is out of range.
        ValueError: if a weight is negative or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the logits that hold NaN or infinity.

    Reference:
        Yang et al., From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss
        and Customized Soft Labels, arXiv:2303.13005, section 3.

    >>> import torch
    >>> z = torch.zeros(1, 2)  # one sample, P = 1: log 2 of the target, nothing else but 0.005 log 2 of the weak head
    >>> customized_soft_label_loss(z, z, torch.tensor([0]))
    tensor(0.6966)
    """
    for name, value in (("target_weight", target_weight), ("non_target_weight", non_target_weight)):
        check_non_negative(value, name)
    check_non_negative(weak_weight, "weak_weight")
    check_reduction(reduction)
    _check_pair(student_logits, weak_logits, "weak_logits")
    check_ndim(student_logits, "student_logits", "(N, C)", at_least=2, at_most=2)
    classes, _ = _labelled_classes(target, student_logits)
    student = at_least_float32(student_logits)
    target_labels = customized_target_labels(student_logits, target)
    target_part = _cross_entropy(target_labels, log_softmax(student, dim=1).gather(1, classes))
    soft_labels = zipf_soft_labels(class_rank_scores(student_logits, weak_logits, target), target)
    non_target_part = _guarded_cross_entropy(soft_labels, _log_others(student, classes, 1.0))
    weak = at_least_float32(weak_logits)
    weak_target = target.to(weak.dtype) if target.is_floating_point() else target.long()
    weak_part = cross_entropy(weak, weak_target, label_smoothing=_WEAK_LABEL_SMOOTHING, reduction="none")
    per_sample = target_weight * target_part + non_target_weight * non_target_part + weak_weight * weak_part
    loss = reduce_loss(per_sample, reduction)
    check_finite(loss, student_logits=student_logits, weak_logits=weak_logits)
    return loss


def customized_target_labels(student_logits: Tensor, target: Tensor) -> Tensor:
    r"""Return USKD's soft labels of the labelled classes, :math:`P_k = p_k^2 + V_k - \overline{p_k^2}`.

    A sample as confident as the batch on average gets its label :math:`V_k`, a more confident one more.

    Args:
        student_logits: Raw scores, shape ``(N, C)``.
        target: Class indices ``(N,)``, for which :math:`V = 1`, or soft labels ``(N, C)``, whose two largest entries
            are :math:`V_1, V_2`.

    Returns:
        Shape ``(N, 1)`` for indices, ``(N, 2)`` for soft labels, the larger first; zero where :math:`V_k = 0`. Without
        a graph.

    Reference:
        Yang et al., arXiv:2303.13005, section 3.

    >>> import torch
    >>> customized_target_labels(torch.zeros(3, 4), torch.tensor([0, 1, 2])).flatten()
    tensor([1., 1., 1.])
    """
    classes, labels = _labelled_classes(target, student_logits)
    squared = softmax(at_least_float32(student_logits.detach()), dim=1).gather(1, classes).square()
    return (squared + labels - squared.mean(0)).masked_fill(labels == 0, 0.0)


def class_rank_scores(student_logits: Tensor, weak_logits: Tensor, target: Tensor) -> Tensor:
    r"""Return what USKD ranks classes by: the non-target probabilities of the student and of the weak head, added.

    .. math:: R_i = \frac{p_i}{1 - p_y} + \frac{\sigma(w)_i}{1 - \sigma(w)_y}

    Args:
        student_logits: Raw scores, shape ``(N, C)``.
        weak_logits: Raw scores of the weak head, same shape.
        target: Class indices ``(N,)``, or soft labels ``(N, C)``, whose two largest entries name the labelled classes.

    Returns:
        Scores of shape ``(N, C)``, minus infinity for a class that the student's logits ban. Without a graph.

    Reference:
        Yang et al., arXiv:2303.13005, section 3.
    """
    classes, _ = _labelled_classes(target, student_logits)
    scores = torch.zeros_like(at_least_float32(student_logits.detach()))
    for logits in (student_logits, weak_logits):
        probabilities = softmax(at_least_float32(logits.detach()), dim=1)
        rest = 1.0 - probabilities.gather(1, classes).sum(1, keepdim=True)
        scores = scores + probabilities / (rest + _RANK_EPSILON)
    return scores.masked_fill(student_logits.detach() == -torch.inf, -torch.inf)


def zipf_soft_labels(rank_scores: Tensor, target: Tensor) -> Tensor:
    """Return soft labels that fall with the rank of a class as Zipf's law does: 1, 1/2, 1/3, ...

    Ranks count all classes; the labelled ones are then set to zero and the others divided by their sum. Classes of
    equal score are ranked by their index.

    Args:
        rank_scores: Scores of shape ``(N, C)``; minus infinity takes a class out.
        target: Class indices ``(N,)``, or soft labels ``(N, C)``, whose two largest entries name the labelled classes.

    Returns:
        Labels of shape ``(N, C)`` that sum to 1 per sample (to 0 if no class is left). Without a graph.

    Reference:
        Yang et al., arXiv:2303.13005, section 3.

    >>> import torch
    >>> zipf_soft_labels(torch.tensor([[0.5, 0.1, 0.3]]), torch.tensor([0]))  # ranks 1, 3, 2
    tensor([[0.0000, 0.4000, 0.6000]])
    """
    classes, _ = _labelled_classes(target, rank_scores, name="rank_scores")
    scores = at_least_float32(rank_scores.detach())
    order = scores.argsort(dim=1, descending=True, stable=True)
    by_rank = 1.0 / torch.arange(1, scores.shape[1] + 1, dtype=scores.dtype, device=scores.device)
    labels = torch.zeros_like(scores).scatter(1, order, by_rank.expand_as(scores))
    labels = labels.scatter(1, classes, 0.0).masked_fill(scores == -torch.inf, 0.0)
    total = labels.sum(1, keepdim=True)
    return labels / torch.where(total > 0, total, torch.ones_like(total))


def weighted_soft_label_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float = 2.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Soft cross-entropy to the teacher, lighter where the student already beats the teacher (WSLD).

    .. math::

        L = - \tau^2 \Big(1 - \exp\big(- \tfrac{H(y, p_s)}{H(y, p_t)}\big)\Big)
            \sum_c \sigma(z_t/\tau)_c \log \sigma(z_s/\tau)_c

    The weight is taken from the cross-entropies :math:`H` with the label at temperature 1 and carries no gradient. The
    loss does not fall to zero.

    Args:
        student_logits: Raw scores, shape ``(N, C)`` or ``(N, C, ...)``; the class axis is 1.
        teacher_logits: Same shape. Gradients never flow into it.
        target: Class indices of shape ``(N, ...)``. Labels at masked positions are not read.
        temperature: Softness :math:`\tau > 0` of both distributions (unitless). Paper: 2 on ImageNet, 4 on CIFAR.
        mask: Positions that count, shape ``(N, ...)`` without the class axis; boolean or weights. Default: all.
        reduction: ``"none"`` gives one value per position, shape ``(N, ...)``; ``"mean"`` and ``"sum"`` reduce those.

    Returns:
        Loss in nats, scaled by :math:`\tau^2`. Published weights of a match: 2.25 to 2.5.

    Raises:
        ShapeError: if shapes or devices differ, or there are fewer than two classes.
        TargetError: if a label is out of range, or ``target`` holds soft labels.
        ValueError: if ``temperature <= 0`` or ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the logits that hold NaN or infinity.

    Reference:
        Zhou et al., Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective,
        arXiv:2102.00650, section 3.

    >>> import torch
    >>> z = torch.zeros(1, 2)  # (1 - e^-1) log 2: the student is as good as the teacher
    >>> weighted_soft_label_loss(z, z, torch.tensor([0]), temperature=1.0)
    tensor(0.4382)
    """
    check_logits(student_logits, teacher_logits)
    check_positive(temperature, "temperature")
    check_reduction(reduction)
    index = _class_index(target, student_logits, mask)
    student = at_least_float32(blank_masked(student_logits, mask, dim=1))
    teacher = at_least_float32(blank_masked(teacher_logits.detach(), mask, dim=1))
    with torch.no_grad():
        ratio = cross_entropy(student, index, reduction="none") / (
            cross_entropy(teacher, index, reduction="none") + _RATIO_EPSILON
        )
        weight = -torch.expm1(-ratio)
    soft = _cross_entropy(softmax(teacher / temperature, dim=1), _log_softened(student, temperature))
    loss = reduce_loss(weight * soft * temperature**2, reduction, mask=mask)
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Keep the teacher's relations between classes and between samples, by correlation (DIST).

    .. math::

        L = \tau^2 \Big[ \beta \big(1 - \tfrac1N \sum_n \rho(Y_{s,n\cdot}, Y_{t,n\cdot})\big)
            + \gamma \big(1 - \tfrac1C \sum_c \rho(Y_{s,\cdot c}, Y_{t,\cdot c})\big) \Big], \qquad Y = \sigma(z/\tau)

    with Pearson's correlation :math:`\rho`. The inter term compares the classes within each sample, the intra term the
    samples within each class. Maps ``(N, C, ...)`` count every position of the batch as a sample.

    There is no ``reduction``: the intra term has no value per sample. A class or sample whose probabilities are all
    equal correlates with nothing and contributes 1. With fewer than two samples the intra term is zero.

    Args:
        student_logits: Raw scores, shape ``(N, C)`` or ``(N, C, ...)``; the class axis is 1.
        teacher_logits: Same shape. Gradients never flow into it.
        temperature: Softness :math:`\tau > 0` of both distributions (unitless). Paper: 1 on ImageNet.
        inter_weight: Weight :math:`\beta` of the correlation over classes. Paper: 1 (and the whole loss times 2).
        intra_weight: Weight :math:`\gamma` of the correlation over samples. Paper: 1.
        mask: Positions that count, shape ``(N, ...)`` without the class axis; boolean or weights. Default: all.

    Returns:
        A scalar, scaled by :math:`\tau^2`; zero for equal logits that vary, and when no position counts.

    Raises:
        ShapeError: if shapes or devices differ, or there are fewer than two classes.
        ValueError: if ``temperature <= 0`` or a weight is negative.
        NonFiniteError: if the loss is not finite (CPU), naming the logits that hold NaN or infinity.

    Reference:
        Huang et al., Knowledge Distillation from A Stronger Teacher, arXiv:2205.10536, section 3.

    >>> import torch
    >>> z = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    >>> abs(float(dist_loss(z, z))) < 1e-6
    True
    """
    check_logits(student_logits, teacher_logits)
    check_positive(temperature, "temperature")
    check_non_negative(inter_weight, "inter_weight")
    check_non_negative(intra_weight, "intra_weight")
    student = softmax(at_least_float32(blank_masked(student_logits, mask, dim=1)) / temperature, dim=1)
    teacher = softmax(at_least_float32(blank_masked(teacher_logits.detach(), mask, dim=1)) / temperature, dim=1)
    inter = reduce_loss(1.0 - _correlation(student, teacher, (1,), None), "mean", mask=mask)
    weight = None if mask is None else mask.to(student.dtype).unsqueeze(1)
    positions = tuple(axis for axis in range(student.ndim) if axis != 1)
    intra = 1.0 - _correlation(student, teacher, positions, weight).mean()
    if mask is None:
        related = student.numel() // student.shape[1] >= 2
        intra = intra if related else student.sum() * 0.0
    else:
        intra = torch.where((mask != 0).sum() >= 2, intra, torch.zeros_like(intra))
    loss = (inter_weight * inter + intra_weight * intra) * temperature**2
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss


def _check_pair(student_logits: Tensor, other: Tensor, other_name: str) -> None:
    """Check logits and something of the same shape over the same classes."""
    for tensor, name in ((student_logits, "student_logits"), (other, other_name)):
        check_ndim(tensor, name, "(N, C) or (N, C, ...)", at_least=2)
        check_floating(tensor, name)
    check_same_shape(
        student_logits, other, "student_logits", other_name, hint="both must cover the same classes in the same order"
    )
    check_classes(student_logits, "student_logits", at_least=2)


def _check_probabilities(probabilities: Tensor, name: str, mask: Tensor | None) -> None:
    """Raise :class:`TargetError` unless axis 1 sums to 1; read on the CPU alone, where nothing has to be waited for."""
    if probabilities.device.type != "cpu" or torch.compiler.is_compiling() or not probabilities.numel():
        return
    total, lowest = probabilities.sum(1), float(probabilities.min())
    if lowest >= 0 and all(abs(float(extreme) - 1.0) <= _SUM_TOLERANCE for extreme in total.aminmax()):
        return
    wrong = (total - 1.0).abs() > _SUM_TOLERANCE
    if mask is not None:
        wrong &= mask != 0
    if lowest < 0 or bool(wrong.any()):
        got = f"a sum of {float(total[wrong][0]):.4g}" if bool(wrong.any()) else f"an entry of {lowest:.4g}"
        raise TargetError(
            f"{name} must hold probabilities that are >= 0 and sum to 1 over the classes (axis 1), got {got} in shape "
            f"{tuple(probabilities.shape)}: apply softmax to logits first, or use kl_divergence_loss on logits"
        )


def _class_index(target: Tensor, logits: Tensor, mask: Tensor | None, *, soft_labels: bool = False) -> Tensor:
    """Return checked class indices of shape ``(N, ...)``; labels at masked positions become class 0."""
    check_same_device(target, logits, "target", "student_logits")
    if soft_labels and target.is_floating_point():
        check_same_shape(target, logits, "target", "student_logits", hint="soft labels cover the classes on axis 1")
        return target.argmax(1)
    if mask is not None and mask.shape == target.shape:
        target = target.masked_fill(mask == 0, 0)
    check_target(target, logits)
    return target.long()


def _labelled_classes(target: Tensor, logits: Tensor, *, name: str = "student_logits") -> tuple[Tensor, Tensor]:
    """Return the classes that a label names and their label weights, both ``(N, 1)``, or ``(N, 2)`` for soft labels."""
    check_ndim(logits, name, "(N, C)", at_least=2, at_most=2)
    if not target.is_floating_point():
        check_target(target, logits)
        classes = target.long().unsqueeze(1)
        return classes, torch.ones_like(classes, dtype=at_least_float32(logits).dtype)
    check_same_shape(target, logits, "target", name, hint="soft labels cover the classes on axis 1")
    if logits.shape[1] < 3:
        raise ShapeError(
            f"{name} must score at least 3 classes on axis 1 for soft labels, of which two are labelled, got shape "
            f"{tuple(logits.shape)}: pass class indices as target"
        )
    labels, classes = target.detach().to(at_least_float32(logits).dtype).topk(2, dim=1)
    return classes, labels


def _log_softened(logits: Tensor, temperature: float) -> Tensor:
    """Log-probabilities over axis 1 at a temperature, in float32 or better."""
    logits = at_least_float32(logits)
    return log_softmax(logits if temperature == 1 else logits / temperature, dim=1)


def _rescaled(values: Tensor, temperature: float) -> Tensor:
    """Multiply by the square of the temperature, which undoes what softening takes from the gradient."""
    return values if temperature == 1 else values * temperature**2


def _log_others(logits: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Log-probabilities over the classes other than ``classes``, which get minus infinity."""
    return log_softmax((logits if temperature == 1 else logits / temperature).scatter(1, classes, -torch.inf), dim=1)


def _split(logits: Tensor, index: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the logit of the target class against all others, and the log-probabilities among those others."""
    scaled = at_least_float32(logits) / temperature
    others = scaled.scatter(1, index, -torch.inf)
    rest = torch.logsumexp(others, dim=1, keepdim=True)
    return scaled.gather(1, index) - rest, others - rest


def _two_classes(margin: Tensor) -> Tensor:
    """Log-probabilities of the two sides of a margin of shape ``(N, 1, ...)``, on axis 1."""
    return logsigmoid(torch.cat([margin, -margin], dim=1))


def _divergence(log_teacher: Tensor, log_student: Tensor) -> Tensor:
    """Sum ``p (log p - log q)`` over axis 1; a class without mass in ``p`` contributes nothing, whatever ``q`` says."""
    if reads_at_once(log_student):
        plain = kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(1)
        if all_finite(plain):
            return plain
    return _guarded_divergence(log_teacher, log_student)


def _guarded_divergence(log_teacher: Tensor, log_student: Tensor) -> Tensor:
    teacher = log_teacher.exp()
    return 0.0 - (teacher * (log_student - log_teacher)).masked_fill(teacher == 0, 0.0).sum(1)


def _cross_entropy(teacher: Tensor, log_student: Tensor) -> Tensor:
    """Sum ``- p log q`` over axis 1; a class without mass in ``p`` contributes nothing, whatever ``q`` says."""
    if reads_at_once(log_student):
        plain = -(teacher * log_student).sum(1)
        if all_finite(plain):
            return plain
    return _guarded_cross_entropy(teacher, log_student)


def _guarded_cross_entropy(teacher: Tensor, log_student: Tensor) -> Tensor:
    return -(teacher * log_student).masked_fill(teacher == 0, 0.0).sum(1)


def _correlation(student: Tensor, teacher: Tensor, axes: tuple[int, ...], weight: Tensor | None) -> Tensor:
    """Pearson's correlation over ``axes``, of positions weighted by ``weight``; 0 where either side is constant."""
    first, second = (_deviations(values, axes, weight) for values in (student, teacher))
    squared = first.square().sum(axes) * second.square().sum(axes)
    # the gradient of a root at zero is infinite, and times 0 NaN; what is added is lost next to any other number
    norms = (squared + torch.finfo(squared.dtype).tiny).sqrt()
    return (first * second).sum(axes) / (norms + _CORRELATION_EPSILON)


def _deviations(values: Tensor, axes: tuple[int, ...], weight: Tensor | None) -> Tensor:
    """Deviations from the mean over ``axes``, times the root of the weight."""
    if weight is None:
        return values - values.mean(axes, keepdim=True)
    total = weight.sum(axes, keepdim=True)
    mean = (values * weight).sum(axes, keepdim=True) / torch.where(total > 0, total, torch.ones_like(total))
    return (values - mean) * weight.sqrt()
