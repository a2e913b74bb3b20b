"""Losses on hidden features: maps, volumes and token states of the student against those of the teacher.

Student and teacher features come from the places that taps name, after any adapter (:mod:`limbeck_core.adapters`). Maps
have shape ``(N, C, ...)`` with up to three spatial axes, token states ``(N, L, D)``. Every loss compares one pair of
tensors; only those that are defined across layers (:func:`fsp_loss`, :func:`hierarchical_context_loss`) take sequences,
and several layers otherwise are several matches. All of them work in float32 or better, detach the teacher, and give a
differentiable zero for an empty batch.

Where a loss needs no common channel count, two maps of different spatial size are brought to the smaller size of each
axis by adaptive average pooling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    interpolate,
    linear,
    log_softmax,
    mse_loss,
    normalize,
    relu,
    softplus,
)

from limbeck_core.checks import (
    check_between,
    check_finite,
    check_floating,
    check_ndim,
    check_non_negative,
    check_positive,
    check_same_device,
    check_same_shape,
)
from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import at_least_float32, in_one_precision
from limbeck_core.functional.reduction import Reduction, blank_masked, check_mask, check_reduction, reduce_loss

Masking = Literal["channel", "pixel"]

_POOLS: dict[int, Callable[..., Tensor]] = {1: adaptive_avg_pool1d, 2: adaptive_avg_pool2d, 3: adaptive_avg_pool3d}
_INTERPOLATIONS = {1: "linear", 2: "bilinear", 3: "trilinear"}

_MAPS = "(N, C, ...) with one to three spatial axes"
_ANY = "(N, C) or (N, C, ...)"
_TOKENS = "(N, L, D) or (N, D)"


def hint_loss(
    student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Mean squared difference of features (FitNet's hint loss).

    .. math:: L = \operatorname{mean}\big((r(F_s) - F_t)^2\big)

    The regressor :math:`r` stands outside: :class:`limbeck_core.adapters.HintRegressor` or any other adapter. On logits
    this is the logit regression of Ba and Caruana.

    Args:
        student_features: Shape ``(N, C)`` or ``(N, C, ...)``, any number of spatial axes.
        teacher_features: Same shape. Gradients never flow into it.
        mask: Positions that count, shape ``(N, ...)`` without the channel axis; boolean or weights. Default: all.
        reduction: ``"none"`` gives one value per position, the mean over channels, shape ``(N, ...)``; ``"mean"`` of
            those is the mean over every element.

    Returns:
        Loss in squared feature units.

    Raises:
        ShapeError: if shapes or devices differ.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Romero et al., FitNets: Hints for Thin Deep Nets, arXiv:1412.6550, eq. 3 (there the sum over elements, halved).

    >>> import torch
    >>> hint_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0]]))
    tensor(5.)
    """
    _check_pair(student_features, teacher_features, _ANY, at_least=2)
    check_reduction(reduction)
    loss = _mean_square(student_features, teacher_features, mask, reduction, dim=1)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


def squared_distance_loss(
    student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Squared Euclidean distance of the whole feature map, per sample.

    .. math:: L = \frac{1}{N} \sum_n \sum_{c, h, w} (F_s - F_t)^2

    The sum over elements is what dense-prediction methods weigh with numbers such as 7e-5; :func:`hint_loss` takes the
    mean instead.

    Args:
        student_features: Shape ``(N, C)`` or ``(N, C, ...)``.
        teacher_features: Same shape. Gradients never flow into it.
        mask: Positions that count, shape ``(N, ...)`` without the channel axis; boolean or weights. Default: all. The
            sum is not divided by the number of kept positions.
        reduction: ``"none"`` gives one value per sample, shape ``(N,)``; ``"mean"`` and ``"sum"`` reduce those.

    Returns:
        Loss in squared feature units.

    Raises:
        ShapeError: if shapes or devices differ.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        The feature terms of Yang et al., Masked Generative Distillation, arXiv:2205.01529, and of Yang et al.,
        Effective Whole-body Pose Estimation with Two-stages Distillation, arXiv:2307.15880.

    >>> import torch
    >>> squared_distance_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 0.0]]))
    tensor(10.)
    """
    _check_pair(student_features, teacher_features, _ANY, at_least=2)
    check_reduction(reduction)
    student, teacher = at_least_float32(student_features), at_least_float32(teacher_features.detach())
    if mask is None:
        per_sample = mse_loss(student, teacher, reduction="none").flatten(1).sum(1)
    else:
        per_position = _masked_squares(student, teacher, mask, dim=1) * mask.to(student.dtype)
        per_sample = per_position.flatten(1).sum(1) if per_position.ndim > 1 else per_position
    loss = reduce_loss(per_sample, reduction)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


def attention_transfer_loss(
    student_features: Tensor, teacher_features: Tensor, *, power: float = 2.0, reduction: Reduction = "mean"
) -> Tensor:
    r"""Distance of normalised spatial attention maps (AT).

    .. math:: L = \operatorname{mean}_{n,h,w} \Big(\frac{A_s}{\|A_s\|_2} - \frac{A_t}{\|A_t\|_2}\Big)^2,
              \qquad A = \operatorname{mean}_c |F_c|^p

    Channel counts may differ; spatial sizes are brought to the smaller by average pooling before the power.

    Args:
        student_features: Maps ``(N, C_s, ...)``.
        teacher_features: Maps ``(N, C_t, ...)``. Gradients never flow into them.
        power: Exponent :math:`p \ge 1`; larger ones look at the strongest activations only. Paper: 2.
        reduction: ``"none"`` gives one value per sample, the mean over positions, shape ``(N,)``.

    Returns:
        Loss without unit. A map that is zero everywhere has zero attention. The mean over positions is the convention
        of the common implementations, and the usual weight of 1000 belongs to it.

    Raises:
        ShapeError: if batch sizes, numbers of axes or devices differ.
        ValueError: if ``power < 1`` or ``reduction`` is unknown.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Zagoruyko and Komodakis, Paying More Attention to Attention, arXiv:1612.03928, section 3.1.

    >>> import torch
    >>> maps = torch.rand(2, 3, 4, 4)
    >>> attention_transfer_loss(maps, 2 * maps) < 1e-12
    tensor(True)
    """
    _check_maps(student_features, teacher_features)
    check_power(power)
    check_reduction(reduction)
    student, teacher = pool_to_smaller(at_least_float32(student_features), at_least_float32(teacher_features.detach()))
    difference = _attention(student, power) - _attention(teacher, power)
    loss = reduce_loss(difference.square().mean(1), reduction)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


def neuron_selectivity_loss(
    student_features: Tensor, teacher_features: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Maximum mean discrepancy of channel maps under the kernel :math:`k(a, b) = (a^\top b)^2` (NST).

    Each channel's map, normalised over space, is one point; student and teacher are two clouds of points per sample:

    .. math:: L = \operatorname{mean}_{t t'} k(t, t') + \operatorname{mean}_{s s'} k(s, s')
              - 2 \operatorname{mean}_{s t} k(s, t)

    Channel counts may differ; spatial sizes are brought to the smaller by average pooling. The kernel means are squared
    Gram matrices, over channels or over positions, whichever is smaller; nothing of size ``C * C * H * W`` is built.

    Args:
        student_features: Maps ``(N, C_s, ...)``.
        teacher_features: Maps ``(N, C_t, ...)``. Gradients never flow into them.
        reduction: ``"none"`` gives one value per sample, shape ``(N,)``.

    Returns:
        Loss without unit, the teacher's constant first term included. A dead channel is the origin.

    Raises:
        ShapeError: if batch sizes, numbers of axes or devices differ.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Huang and Wang, Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, arXiv:1707.01219.

    >>> import torch
    >>> maps = torch.rand(2, 3, 4, 4)
    >>> neuron_selectivity_loss(maps, maps.flip(1)) < 1e-6
    tensor(True)
    """
    _check_maps(student_features, teacher_features)
    check_reduction(reduction)
    student, teacher = pool_to_smaller(*in_one_precision(student_features, teacher_features.detach()))
    student = normalize(student.flatten(2), dim=2)
    teacher = normalize(teacher.flatten(2), dim=2)
    own, other, positions = student.shape[1], teacher.shape[1], student.shape[2]
    if 2 * positions**2 <= own**2 + own * other + other**2:
        gram = torch.bmm(student.mT, student) / own - torch.bmm(teacher.mT, teacher) / other
        per_sample = gram.square().sum((1, 2))
    else:
        per_sample = (
            torch.bmm(teacher, teacher.mT).square().mean((1, 2))
            + torch.bmm(student, student.mT).square().mean((1, 2))
            - 2 * torch.bmm(student, teacher.mT).square().mean((1, 2))
        )
    loss = reduce_loss(per_sample, reduction)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


def factor_transfer_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    *,
    power: int | None = 2,
    order: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Distance of normalised factors (FT).

    .. math:: L = \operatorname{mean} \Big|\frac{Q_s}{\|Q_s\|_2} - \frac{Q_t}{\|Q_t\|_2}\Big|^{q}

    The factors come from :class:`limbeck_core.adapters.Translator` on the student's side and from a trained
    :class:`limbeck_core.adapters.Paraphraser` on the teacher's. With ``power`` the compared quantity is the channel
    mean :math:`Q = \operatorname{mean}_c F_c^p`, the simplification of the common implementations, to which the usual
    weight of 200 belongs; ``power=None`` compares whole factors, :math:`Q = F`, as the paper does.

    Args:
        student_features: Student factors ``(N, C_s, ...)``.
        teacher_features: Teacher factors ``(N, C_t, ...)``. Gradients never flow into them.
        power: Exponent :math:`p \ge 1` before the channel mean, or ``None`` for whole factors (needs equal channels).
        order: Exponent :math:`q \ge 1` of the difference. Paper: 1.
        reduction: ``"none"`` gives one value per sample, the mean over elements, shape ``(N,)``.

    Returns:
        Loss without unit.

    Raises:
        ShapeError: if batch sizes, numbers of axes or devices differ, or channels with ``power=None``.
        ValueError: if ``power``, ``order`` or ``reduction`` is out of range.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Kim et al., Paraphrasing Complex Network: Network Compression via Factor Transfer, arXiv:1802.04977, section 3.

    >>> import torch
    >>> factors = torch.rand(2, 3, 4, 4)
    >>> factor_transfer_loss(factors, 2 * factors) < 1e-6
    tensor(True)
    """
    _check_maps(student_features, teacher_features)
    check_factor_power(power)
    check_power(order, "order")
    check_reduction(reduction)
    student, teacher = pool_to_smaller(at_least_float32(student_features), at_least_float32(teacher_features.detach()))
    if power is None:
        check_same_shape(student, teacher, "student_features", "teacher_features")
    difference = (_factor(student, power) - _factor(teacher, power)).abs()
    loss = reduce_loss((difference if order == 1 else difference.pow(order)).mean(1), reduction)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


def fsp_loss(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Distance of the flow of the solution procedure between consecutive layers (FSP).

    .. math:: L = \sum_i \operatorname{mean}_{n,a,b} \big(G_s^i - G_t^i\big)^2,
              \qquad G^i_{ab} = \operatorname{mean}_{h,w} F^i_a F^{i+1}_b

    Within one network, the larger of two consecutive maps is average-pooled to the smaller; student and teacher need no
    common spatial size, but the same channels in every layer.

    Args:
        student_features: Two or more maps ``(N, C_i, ...)``, shallow to deep.
        teacher_features: As many maps with the same channels. Gradients never flow into them.
        reduction: ``"none"`` gives one value per sample, summed over pairs of layers, shape ``(N,)``.

    Returns:
        Loss in feature units to the fourth.

    Raises:
        ShapeError: if there are fewer than two maps, the counts differ, or batch sizes, channels or devices do.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Yim et al., A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning,
        CVPR 2017, eq. 1 and 2.

    >>> import torch
    >>> ones = torch.ones(1, 2, 4, 4)
    >>> fsp_loss([ones, ones], [ones, 3 * ones])
    tensor(4.)
    """
    _check_sequences(student_features, teacher_features, at_least=2)
    for index, (student, teacher) in enumerate(zip(student_features, teacher_features, strict=True)):
        names = _check_maps(student, teacher, index)
        _check_channels(student, teacher, names)
    check_reduction(reduction)
    students = [at_least_float32(features) for features in student_features]
    teachers = [at_least_float32(features.detach()) for features in teacher_features]
    terms = []
    for index in range(len(students) - 1):
        flow = _solution_flow(students[index], students[index + 1])
        goal = _solution_flow(teachers[index], teachers[index + 1])
        terms.append((flow - goal).square().mean((1, 2)))
    loss = reduce_loss(_add(terms), reduction)
    check_finite(loss, **_numbered(student_features, teacher_features))
    return loss


def activation_boundary_loss(
    student_features: Tensor, teacher_features: Tensor, *, margin: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    r"""Squared hinge that puts each student neuron on the teacher's side of zero (AB).

    .. math:: L = \frac{1}{N} \sum \begin{cases} \max(0, \mu - F_s)^2 & F_t > 0 \\
              \max(0, \mu + F_s)^2 & F_t \le 0 \end{cases}

    Only the sign of the teacher's response counts, so both sides are tapped before the activation function.

    Args:
        student_features: Responses ``(N, C)`` or ``(N, C, ...)`` before the activation.
        teacher_features: Same shape. Gradients never flow into it.
        margin: Distance :math:`\mu > 0` from zero beyond which a response costs nothing. Paper: 1.
        reduction: ``"none"`` gives one value per sample, the sum over its elements, shape ``(N,)``.

    Returns:
        Loss in squared feature units. Sums over several layers, and their weights, belong to the matches; the paper
        doubles the weight from stage to stage.

    Raises:
        ShapeError: if shapes or devices differ.
        ValueError: if ``margin <= 0`` or ``reduction`` is unknown.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Heo et al., Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons,
        arXiv:1811.03233, section 2.

    >>> import torch
    >>> activation_boundary_loss(torch.tensor([[2.0, 0.5, -3.0]]), torch.tensor([[1.0, -1.0, -1.0]]))
    tensor(2.2500)
    """
    _check_pair(student_features, teacher_features, _ANY, at_least=2)
    check_positive(margin, "margin")
    check_reduction(reduction)
    student, teacher = at_least_float32(student_features), at_least_float32(teacher_features.detach())
    # the inner where keeps a NaN of the teacher visible
    side = torch.where(teacher > 0, 1.0, torch.where(teacher <= 0, -1.0, teacher))
    violation = relu(margin - side * student)
    loss = reduce_loss(_square_sums(violation), reduction)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


def variational_information_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    raw_variance: Tensor,
    *,
    floor: float = 1e-5,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Negative log-likelihood of the teacher's features under a Gaussian that the student predicts (VID).

    .. math:: L = \operatorname{mean} \tfrac12 \Big(\frac{(\mu(F_s) - F_t)^2}{\sigma_c^2} + \ln \sigma_c^2\Big),
              \qquad \sigma_c^2 = \operatorname{softplus}(\alpha_c) + \epsilon

    A variational lower bound of the mutual information of both features, without its constant. The module owns the
    regressor :math:`\mu` and :math:`\alpha`; both are trained.

    Args:
        student_features: The regressor's output :math:`\mu(F_s)`, shape ``(N, C, ...)`` or ``(N, C)``.
        teacher_features: Same batch and channels. Gradients never flow into it. Spatial sizes are brought to the
            smaller by average pooling; the module pools before its regressor.
        raw_variance: The parameters :math:`\alpha`, shape ``(C,)``. Gradients do flow.
        floor: Smallest variance :math:`\epsilon > 0`.
        reduction: ``"none"`` gives one value per sample, the mean over its elements, shape ``(N,)``.

    Returns:
        Loss in nats per element, below zero where variances are small. For a perfect regressor it is
        ``mean(log(variance)) / 2``.

    Raises:
        ShapeError: if batch sizes, channels or devices differ, or ``raw_variance`` is not of shape ``(C,)``.
        ValueError: if ``floor <= 0`` or ``reduction`` is unknown.
        NonFiniteError: if an input holds NaN or infinity (CPU), naming which.

    Reference:
        Ahn et al., Variational Information Distillation for Knowledge Transfer, arXiv:1904.05835, eq. 5.

    >>> import torch
    >>> one = torch.log(torch.expm1(torch.ones(1)))
    >>> round(variational_information_loss(torch.tensor([[2.0]]), torch.tensor([[0.0]]), one).item(), 3)
    2.0
    """
    _check_alike(student_features, teacher_features, _ANY, at_least=2, at_most=5)
    _check_channels(student_features, teacher_features, ("student_features", "teacher_features"))
    _check_vector(raw_variance, "raw_variance", student_features, "student_features")
    check_positive(floor, "floor")
    check_reduction(reduction)
    student, teacher = pool_to_smaller(at_least_float32(student_features), at_least_float32(teacher_features.detach()))
    squared = mse_loss(student, teacher, reduction="none")
    if squared.ndim > 2:
        squared = squared.flatten(2).mean(2)
    variance = softplus(raw_variance.to(squared.dtype)) + floor
    loss = reduce_loss(0.5 * (squared / variance + variance.log()).mean(1), reduction)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features, raw_variance=raw_variance)
    return loss


def pooled_feature_loss(student_features: Tensor, teacher_features: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Mean squared difference of spatially averaged features.

    .. math:: L = \operatorname{mean}_{n,c} \big(\operatorname{mean}_{h,w} F_s - \operatorname{mean}_{h,w} F_t\big)^2

    Args:
        student_features: Maps ``(N, C, ...)``, or pooled vectors ``(N, C)``.
        teacher_features: Same batch and channels, any spatial size. Gradients never flow into it.
        reduction: ``"none"`` gives one value per sample, the mean over channels, shape ``(N,)``.

    Returns:
        Loss in squared feature units.

    Raises:
        ShapeError: if batch sizes, channels or devices differ.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        The feature term of Yang et al., Knowledge Distillation via Softmax Regression Representation Learning, ICLR
        2021, as its authors' code computes it.

    >>> import torch
    >>> pooled_feature_loss(torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.0, 0.0]]]))
    tensor(4.)
    """
    _check_pooled(student_features, teacher_features)
    check_reduction(reduction)
    student = _global_pool(at_least_float32(student_features))
    teacher = _global_pool(at_least_float32(teacher_features.detach()))
    loss = reduce_loss((student - teacher).square().mean(1), reduction)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


def softmax_regression_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    classifier_weight: Tensor,
    *,
    feature_weight: float = 1.0,
    logit_weight: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Agreement of pooled features, and of what the teacher's classifier makes of them (SRRL).

    .. math:: L = \alpha \operatorname{mean}_c (f_s - f_t)^2 + \beta \operatorname{mean}_k (W f_s - W f_t)^2,
              \qquad f = \operatorname{mean}_{h,w} F

    :math:`W` is the teacher's own last layer, frozen; the gradient reaches the student through it. In a match, the
    weight is a tap on the teacher: ``extras={"classifier_weight": Tap("fc.weight", of="teacher")}``, and the
    student's features pass :class:`limbeck_core.adapters.SRRLAdapter`.

    Args:
        student_features: Last maps ``(N, C, ...)`` after the adapter, or pooled vectors ``(N, C)``.
        teacher_features: Same batch and channels, any spatial size. Gradients never flow into it.
        classifier_weight: The teacher's classifier, shape ``(K, C)``. Gradients never flow into it. Its bias cancels in
            the difference of both sides' scores.
        feature_weight: :math:`\alpha \ge 0`, weight of the feature term. Paper: 1.
        logit_weight: :math:`\beta \ge 0`, weight of the logit term. Authors' settings: 1 on ImageNet, 5 on CIFAR.
        reduction: ``"none"`` gives one value per sample, shape ``(N,)``.

    Returns:
        The weighted sum of both terms.

    Raises:
        ShapeError: if batch sizes, channels or devices differ, or the classifier does not take ``C`` features.
        ValueError: if a weight is negative or ``reduction`` is unknown.
        NonFiniteError: if an input holds NaN or infinity (CPU), naming which.

    Reference:
        Yang et al., Knowledge Distillation via Softmax Regression Representation Learning, ICLR 2021.

    >>> import torch
    >>> softmax_regression_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]))
    tensor(4.5000)
    """
    _check_pooled(student_features, teacher_features)
    check_non_negative(feature_weight, "feature_weight")
    check_non_negative(logit_weight, "logit_weight")
    check_reduction(reduction)
    _check_classifier(classifier_weight, student_features)
    student = _global_pool(at_least_float32(student_features))
    teacher = _global_pool(at_least_float32(teacher_features.detach()))
    difference = student - teacher
    weight = classifier_weight.detach().to(difference.dtype)
    per_sample = feature_weight * difference.square().mean(1) + logit_weight * linear(difference, weight).square().mean(
        1
    )
    loss = reduce_loss(per_sample, reduction)
    check_finite(
        loss, student_features=student_features, teacher_features=teacher_features, classifier_weight=classifier_weight
    )
    return loss


def masked_generative_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    generation: Callable[[Tensor], Tensor],
    *,
    mask_ratio: float = 0.15,
    masking: Masking = "channel",
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Generate the teacher's full features from a randomly masked student (MGD).

    .. math:: L = \frac{1}{N} \sum \big(G(F_s \odot M) - F_t\big)^2, \qquad M = [u \ge \lambda], \; u \sim U(0, 1)

    The module owns the generation layers :math:`G`; they are dropped at inference. Nothing is rescaled for what the
    mask removes.

    Args:
        student_features: Maps ``(N, C, ...)``, aligned to the teacher's channels by an adapter.
        teacher_features: Same shape. Gradients never flow into it.
        generation: Maps masked features to the teacher's shape; its parameters receive gradients.
        mask_ratio: Share :math:`\lambda` in ``[0, 1)`` that is set to zero. Authors' settings: 0.15 with channels for
            classification, 0.45 to 0.75 with pixels for dense prediction.
        masking: ``"channel"`` masks whole channels per sample, ``"pixel"`` whole positions over all channels.
        noise: The draws :math:`u`, shape ``(N, C, 1, ...)`` or ``(N, 1, ...)``; ``None`` draws them.
        generator: Source of those draws; ``None`` takes torch's global one. Not used when ``noise`` is given.
        reduction: ``"none"`` gives one value per sample, the sum over its elements, shape ``(N,)``.

    Returns:
        Loss in squared feature units; the authors weigh it by 7e-5 (ImageNet) and 2e-5 (detection).

    Raises:
        ShapeError: if shapes or devices differ, ``noise`` does not fit, or ``generation`` returns another shape.
        ValueError: if ``mask_ratio``, ``masking`` or ``reduction`` is out of range.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Yang et al., Masked Generative Distillation, arXiv:2205.01529, section 3.

    >>> import torch
    >>> masked_generative_loss(torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2), torch.nn.Identity(), mask_ratio=0.0)
    tensor(8.)
    """
    _check_pair(student_features, teacher_features, _MAPS, at_least=3, at_most=5)
    check_mask_ratio(mask_ratio)
    check_masking(masking)
    check_reduction(reduction)
    shape: tuple[int, ...] = student_features.shape
    shape = (*shape[:2], *[1] * len(shape[2:])) if masking == "channel" else (*shape[:1], 1, *shape[2:])
    if noise is None:
        noise = torch.rand(shape, device=student_features.device, generator=generator)
    elif noise.shape != shape:
        raise ShapeError(
            f"noise must have shape {shape} to mask student_features of shape {tuple(student_features.shape)} by "
            f"{masking}, got {tuple(noise.shape)}"
        )
    generated = generation(student_features * (noise >= mask_ratio).to(student_features.dtype))
    check_same_shape(
        generated,
        teacher_features,
        "the output of generation",
        "teacher_features",
        hint="generation must keep the spatial size and end in the teacher's channels",
    )
    squared = mse_loss(at_least_float32(generated), at_least_float32(teacher_features.detach()), reduction="none")
    loss = reduce_loss(squared.flatten(1).sum(1), reduction)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


def channel_wise_divergence_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    *,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Kullback-Leibler divergence over positions, channel by channel (CWD).

    .. math:: L = \frac{\tau^2}{N C} \sum_{n, c} KL\big(\sigma_{hw}(F_t / \tau) \,\|\, \sigma_{hw}(F_s / \tau)\big)

    Each channel's map is a distribution over positions: it says where the channel looks. On maps of class scores the
    same function distils segmentation logits.

    Args:
        student_features: Maps ``(N, C, ...)``, any number of spatial axes.
        teacher_features: Same shape. Gradients never flow into it.
        temperature: Softness :math:`\tau > 0` of both distributions. Paper: 4 for features, 1 to 4 for scores.
        mask: Positions that take part, shape ``(N, ...)`` without the channel axis, for example those that are not
            padding; zero drops one, anything else keeps it. Default: all.
        reduction: ``"none"`` gives one value per sample, the mean over channels, shape ``(N,)``. A sample whose
            positions are all dropped counts as zero.

    Returns:
        Loss in nats times :math:`\tau^2`.

    Raises:
        ShapeError: if shapes or devices differ.
        ValueError: if ``temperature <= 0`` or ``reduction`` is unknown.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, arXiv:2011.13256, eq. 4.

    >>> import torch
    >>> maps = torch.rand(2, 3, 4, 4)
    >>> channel_wise_divergence_loss(maps + 5, maps) < 1e-6
    tensor(True)
    """
    _check_pair(student_features, teacher_features, "(N, C, ...) with at least one spatial axis", at_least=3)
    check_positive(temperature, "temperature")
    check_reduction(reduction)
    log_student = _spatial_log_softmax(student_features, temperature, mask)
    log_teacher = _spatial_log_softmax(teacher_features.detach(), temperature, mask)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(2)
    loss = reduce_loss(divergence.mean(1) * temperature**2, reduction)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


def pearson_feature_loss(student_features: Tensor, teacher_features: Tensor, *, epsilon: float = 1e-6) -> Tensor:
    r"""Half the mean squared difference of standardised channels: one minus Pearson's correlation (PKD).

    .. math:: L = \tfrac12 \operatorname{mean} \big(\hat F_s - \hat F_t\big)^2 \approx 1 - \operatorname{mean}_c r_c,
              \qquad \hat F = \frac{F - m_c}{s_c + \epsilon}

    Mean :math:`m_c` and (unbiased) standard deviation :math:`s_c` of each channel run over the batch and all positions,
    so the loss does not decompose by sample and offers no ``reduction``. Scale and offset of a channel do not matter,
    which is what lets detectors with different heads be compared. A student of another spatial size is resized to the
    teacher's by linear interpolation (corners not aligned).

    Args:
        student_features: Maps ``(N, C, ...)``, or vectors ``(N, C)``.
        teacher_features: Same batch and channels. Gradients never flow into it.
        epsilon: Added to the standard deviation, above 0. A constant channel becomes zero.

    Returns:
        Scalar without unit, between 0 and 2. Fewer than two values per channel have no correlation and give zero.

    Raises:
        ShapeError: if batch sizes, channels or devices differ.
        ValueError: if ``epsilon <= 0``.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Cao et al., PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient,
        arXiv:2207.02039, eq. 5. Its epsilon is that of the authors' code.

    >>> import torch
    >>> maps = torch.rand(2, 3, 4, 4)
    >>> pearson_feature_loss(2 * maps + 1, maps) < 1e-6
    tensor(True)
    """
    _check_alike(student_features, teacher_features, _ANY, at_least=2, at_most=5)
    _check_channels(student_features, teacher_features, ("student_features", "teacher_features"))
    check_positive(epsilon, "epsilon")
    student, teacher = at_least_float32(student_features), at_least_float32(teacher_features.detach())
    if student.shape[2:] != teacher.shape[2:] and student.shape[0]:
        mode = _INTERPOLATIONS[student.ndim - 2]
        student = interpolate(student, size=teacher.shape[2:], mode=mode, align_corners=False)
    if teacher.numel() <= teacher.shape[1]:
        loss = (student * 0).sum()
    else:
        loss = mse_loss(_standardise(student, epsilon), _standardise(teacher, epsilon)) / 2
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


def hierarchical_context_loss(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    *,
    levels: Sequence[int] = (4, 2, 1),
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Squared differences of maps and of their spatial pyramids, summed over stages (ReviewKD's HCL).

    .. math:: L = \sum_i \frac{\operatorname{mse}(F_s^i, F_t^i) + \sum_k 2^{-k} \operatorname{mse}(P_{l_k} F_s^i,
              P_{l_k} F_t^i)}{1 + \sum_k 2^{-k}}

    :math:`P_l` averages a map into ``l`` cells along each axis. Only levels smaller than the map take part, and
    :math:`k` counts those that do, so a small map starts its halving later.

    Args:
        student_features: Maps ``(N, C_i, ...)``, or pooled vectors ``(N, C_i)``, one per stage; usually from
            :class:`limbeck_core.adapters.ReviewFusion`.
        teacher_features: As many, of the same shapes. Gradients never flow into them.
        levels: Pyramid sizes, largest first, each at least 1; empty compares the maps alone.
        reduction: ``"none"`` gives one value per sample, the mean over elements summed over stages, shape ``(N,)``.

    Returns:
        Loss in squared feature units.

    Raises:
        ShapeError: if the counts differ, or shapes or devices within a stage do.
        ValueError: if ``levels`` is not positive and decreasing, or ``reduction`` is unknown.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Chen et al., Distilling Knowledge via Knowledge Review, arXiv:2104.09044, section 3.3; weights and the rule of
        which levels count are those of the authors' code.

    >>> import torch
    >>> hierarchical_context_loss([torch.ones(1, 2, 8, 8)], [torch.zeros(1, 2, 8, 8)])
    tensor(1.)
    """
    _check_sequences(student_features, teacher_features, at_least=1)
    for index, (student, teacher) in enumerate(zip(student_features, teacher_features, strict=True)):
        _check_pair(student, teacher, _ANY, at_least=2, at_most=5, index=index)
    check_levels(levels)
    check_reduction(reduction)
    terms = []
    for student, teacher in zip(student_features, teacher_features, strict=True):
        # pooling is linear: one pyramid of the difference serves both sides
        difference = at_least_float32(student) - at_least_float32(teacher.detach())
        term, weight, total = _square_means(difference), 1.0, 1.0
        for level in levels:
            if level < min(difference.shape[2:], default=0):
                weight /= 2
                pooled = _POOLS[difference.ndim - 2](difference, level)
                term = term + weight * _square_means(pooled)
                total += weight
        terms.append(term / total)
    loss = reduce_loss(_add(terms), reduction)
    check_finite(loss, **_numbered(student_features, teacher_features))
    return loss


def partial_l2_loss(
    student_features: Tensor, teacher_features: Tensor, margin: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Squared difference to the teacher after a margin ReLU, skipped where both are negative enough (OFD).

    .. math:: L = \frac{1}{N} \sum \begin{cases} 0 & F_s \le \max(F_t, m_c) \text{ and } F_t \le 0 \\
              (F_s - \max(F_t, m_c))^2 & \text{otherwise} \end{cases}

    Args:
        student_features: Maps ``(N, C, ...)`` or vectors ``(N, C)`` before the activation, after the adapter.
        teacher_features: Same shape, before the activation. Gradients never flow into it.
        margin: One margin per channel, shape ``(C,)``, at or below zero; see :func:`ofd_margin`. Without gradient.
        reduction: ``"none"`` gives one value per sample, the sum over its elements, shape ``(N,)``.

    Returns:
        Loss in squared feature units; the authors weigh it by 1e-3 (CIFAR) or 1e-4 (ImageNet), halved per stage from
        the deepest to the shallowest.

    Raises:
        ShapeError: if shapes or devices differ, or ``margin`` is not of shape ``(C,)``.
        ValueError: if a margin lies above zero (CPU), or ``reduction`` is unknown.
        NonFiniteError: if an input holds NaN or infinity (CPU), naming which.

    Reference:
        Heo et al., A Comprehensive Overhaul of Feature Distillation, arXiv:1904.01866, eq. 1 and 2.

    >>> import torch
    >>> partial_l2_loss(torch.tensor([[1.0, -3.0]]), torch.tensor([[3.0, -2.0]]), torch.tensor([-0.5, -0.5]))
    tensor(4.)
    """
    _check_pair(student_features, teacher_features, _ANY, at_least=2)
    _check_vector(margin, "margin", student_features, "student_features")
    check_reduction(reduction)
    student, teacher = at_least_float32(student_features), at_least_float32(teacher_features.detach())
    margin = margin.detach().to(student.dtype)
    check_margin(margin)
    goal = torch.maximum(teacher, _per_channel(margin, teacher))
    asked = ((teacher > 0) | (student.detach() > goal)).to(student.dtype)
    loss = reduce_loss((mse_loss(student, goal, reduction="none") * asked).flatten(1).sum(1), reduction)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features, margin=margin)
    return loss


def ofd_margin(bn_weight: Tensor, bn_bias: Tensor) -> Tensor:
    r"""Expected negative response of each channel after a batch normalisation (the margin of OFD).

    A channel leaves the normalisation distributed as :math:`N(m, s^2)`, with :math:`m` the bias and :math:`s` the
    absolute weight:

    .. math:: E[x \mid x < 0] = m - s \, \frac{\varphi(m / s)}{\Phi(-m / s)}

    Args:
        bn_weight: Scales, shape ``(C,)``.
        bn_bias: Offsets, shape ``(C,)``.

    Returns:
        Margins of shape ``(C,)``, at or below zero, without gradient. Where hardly anything is negative,
        :math:`\Phi(-m / s) \le 10^{-3}`, the margin is :math:`-3 s`, the rule of the authors' code. A scale of zero
        gives the limit, ``min(bn_bias, 0)``.

    Raises:
        ShapeError: if the two are not vectors of one length.
        NonFiniteError: if they hold NaN or infinity (CPU), naming which.

    Reference:
        Heo et al., A Comprehensive Overhaul of Feature Distillation, arXiv:1904.01866, eq. 4.

    >>> import torch
    >>> ofd_margin(torch.tensor([1.0]), torch.tensor([0.0]))  # -sqrt(2 / pi)
    tensor([-0.7979])
    """
    for tensor, name in ((bn_weight, "bn_weight"), (bn_bias, "bn_bias")):
        check_ndim(tensor, name, "(C,)", at_least=1, at_most=1)
        check_floating(tensor, name)
    check_same_shape(bn_weight, bn_bias, "bn_weight", "bn_bias", hint="pass both parameters of one normalisation layer")
    scale, mean = at_least_float32(bn_weight.detach()).abs(), at_least_float32(bn_bias.detach())
    safe_scale = scale.clamp_min(torch.finfo(scale.dtype).tiny)
    ratio = mean / safe_scale
    below_zero = torch.special.ndtr(-ratio)
    density = (-0.5 * ratio.square()).exp() / math.sqrt(2 * math.pi)
    expected = mean - safe_scale * density / below_zero.clamp_min(1e-3)
    margin = torch.where(below_zero <= 1e-3, -3 * scale, expected)
    margin = torch.where(scale == 0, mean.clamp_max(0), margin)
    check_finite(margin, bn_weight=bn_weight, bn_bias=bn_bias)
    return margin


def feature_overhaul_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    bn_weight: Tensor,
    bn_bias: Tensor,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Partial L2 distance with the margins of the teacher's batch normalisation (OFD).

    :func:`partial_l2_loss` with :func:`ofd_margin`. In a match, the normalisation's parameters are taps on the teacher:
    ``extras={"bn_weight": Tap("layer3.2.bn2.weight", of="teacher"), ...}``, and the student's features pass
    :class:`limbeck_core.adapters.OFDAdapter`.

    Args:
        student_features: Maps ``(N, C, ...)`` before the activation, after the adapter.
        teacher_features: Same shape: the output of the normalisation. Gradients never flow into it.
        bn_weight: The normalisation's scales, shape ``(C,)``.
        bn_bias: Its offsets, shape ``(C,)``.
        reduction: ``"none"`` gives one value per sample, the sum over its elements, shape ``(N,)``.

    Returns:
        Loss in squared feature units.

    Raises:
        ShapeError: if shapes or devices differ, or the parameters are not of shape ``(C,)``.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if an input holds NaN or infinity (CPU), naming which.

    Reference:
        Heo et al., A Comprehensive Overhaul of Feature Distillation, arXiv:1904.01866. The authors keep the teacher's
        normalisation in training mode; a frozen teacher in evaluation mode, the rule here, has the same margins.

    >>> import torch
    >>> one = torch.ones(1)
    >>> feature_overhaul_loss(torch.tensor([[2.0]]), torch.tensor([[-5.0]]), one, 0 * one)  # (2 + sqrt(2 / pi))^2
    tensor(7.8282)
    """
    margin = ofd_margin(bn_weight, bn_bias)
    return partial_l2_loss(student_features, teacher_features, margin, reduction=reduction)


def hidden_state_mse_loss(
    student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Mean squared difference of hidden states over the tokens that count.

    .. math:: L = \operatorname{mean}_{n, l : \text{mask}} \operatorname{mean}_d (h_s - h_t)^2

    Args:
        student_features: Hidden states ``(N, L, D)``, or vectors ``(N, D)``.
        teacher_features: Same shape. Gradients never flow into it.
        mask: Tokens that count (an attention mask), shape ``(N, L)`` or ``(N,)``; boolean or weights. Default: all.
        reduction: ``"none"`` gives one value per token, shape ``(N, L)``; ``"mean"`` is over kept tokens.

    Returns:
        Loss in squared feature units. What padding holds has no influence on value or gradient, NaN included.

    Raises:
        ShapeError: if shapes or devices differ, or ``mask`` does not fit.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Jiao et al., TinyBERT: Distilling BERT for Natural Language Understanding, arXiv:1909.10351, eq. 8; the matrix
        in front of the student is :class:`limbeck_core.adapters.LinearAdapter`.

    >>> import torch
    >>> states = torch.tensor([[[1.0, 1.0], [9.0, 9.0]]])
    >>> hidden_state_mse_loss(states, torch.zeros(1, 2, 2), mask=torch.tensor([[1, 0]]))
    tensor(1.)
    """
    _check_pair(student_features, teacher_features, _TOKENS, at_least=2, at_most=3)
    check_reduction(reduction)
    loss = _mean_square(student_features, teacher_features, mask, reduction, dim=-1)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


def hidden_state_cosine_loss(
    student_features: Tensor, teacher_features: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""One minus the cosine of hidden states, over the tokens that count (DistilBERT).

    .. math:: L = \operatorname{mean}_{n, l : \text{mask}} \Big(1 - \frac{h_s \cdot h_t}{\|h_s\| \|h_t\|}\Big)

    Args:
        student_features: Hidden states ``(N, L, D)``, or vectors ``(N, D)``.
        teacher_features: Same shape. Gradients never flow into it.
        mask: Tokens that count (an attention mask), shape ``(N, L)`` or ``(N,)``; boolean or weights. Default: all.
        reduction: ``"none"`` gives one value per token, shape ``(N, L)``; ``"mean"`` is over kept tokens.

    Returns:
        Loss between 0 and 2. A zero vector has cosine 0 with everything. What padding holds has no influence.

    Raises:
        ShapeError: if shapes or devices differ, or ``mask`` does not fit.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Sanh et al., DistilBERT, a Distilled Version of BERT: Smaller, Faster, Cheaper and Lighter, arXiv:1910.01108,
        section 2.

    >>> import torch
    >>> hidden_state_cosine_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
    tensor(1.)
    """
    _check_pair(student_features, teacher_features, _TOKENS, at_least=2, at_most=3)
    check_reduction(reduction)
    student = blank_masked(at_least_float32(student_features), mask, dim=-1)
    teacher = blank_masked(at_least_float32(teacher_features.detach()), mask, dim=-1)
    cosine = (student * normalize(teacher, dim=-1)).sum(-1) / torch.linalg.vector_norm(student, dim=-1).clamp_min(1e-12)
    loss = reduce_loss(1 - cosine, reduction, mask=mask)
    check_finite(loss, student_features=student_features, teacher_features=teacher_features)
    return loss


def first_token_loss(student_features: Tensor, teacher_features: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Squared distance of the normalised states of the first token (BERT-PKD's patient loss).

    .. math:: L = \frac{1}{N} \sum_n \Big\| \frac{h_s}{\|h_s\|_2} - \frac{h_t}{\|h_t\|_2} \Big\|_2^2

    The paper sums it over the layers it is patient with: one match per layer.

    Args:
        student_features: Hidden states ``(N, L, D)``, of which token 0 is read, or its states ``(N, D)``.
        teacher_features: Same shape. Gradients never flow into it.
        reduction: ``"none"`` gives one value per sample, shape ``(N,)``.

    Returns:
        Loss between 0 and 4: twice :func:`hidden_state_cosine_loss` of the first token. A zero vector stays zero.

    Raises:
        ShapeError: if shapes or devices differ, or there is no token.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the features hold NaN or infinity (CPU), naming which.

    Reference:
        Sun et al., Patient Knowledge Distillation for BERT Model Compression, arXiv:1908.09355, eq. 7.

    >>> import torch
    >>> first_token_loss(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
    tensor(2.)
    """
    _check_pair(student_features, teacher_features, _TOKENS, at_least=2, at_most=3)
    check_reduction(reduction)
    if student_features.ndim == 3:
        if not student_features.shape[1]:
            raise ShapeError(
                f"student_features must hold at least one token, got shape {tuple(student_features.shape)}: "
                "tap hidden states (N, L, D) of a non-empty sequence"
            )
        first_student, first_teacher = student_features[:, 0], teacher_features[:, 0]
    else:
        first_student, first_teacher = student_features, teacher_features
    student = normalize(at_least_float32(first_student), dim=-1)
    teacher = normalize(at_least_float32(first_teacher.detach()), dim=-1)
    loss = reduce_loss(mse_loss(student, teacher, reduction="none").sum(-1), reduction)
    check_finite(loss, student_features=first_student, teacher_features=first_teacher)
    return loss


def pool_to_smaller(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool two batches of maps to the smaller size of each spatial axis; equal sizes pass unchanged.

    Args:
        student: Maps ``(N, C_s, ...)`` with one to three spatial axes.
        teacher: Maps ``(N, C_t, ...)`` with as many.

    Returns:
        Both, of one spatial size.
    """
    if student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = [min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return _pool_to(student, size), _pool_to(teacher, size)


def check_power(power: float, name: str = "power") -> None:
    """Raise ``ValueError`` unless ``power`` is finite and at least 1 (below, the gradient at zero is infinite)."""
    if not (math.isfinite(power) and power >= 1):
        raise ValueError(f"{name} must be a finite number >= 1, got {power!r}")


def check_factor_power(power: int | None) -> None:
    """Raise ``ValueError`` unless ``power`` is ``None`` or a whole number of at least 1 (factors may be negative)."""
    if power is not None and (power != int(power) or power < 1):
        raise ValueError(f"power must be a whole number >= 1, or None to compare whole factors, got {power!r}")


def check_mask_ratio(mask_ratio: float) -> None:
    """Raise ``ValueError`` unless ``0 <= mask_ratio < 1``."""
    check_between(mask_ratio, "mask_ratio", 0, 1)
    if mask_ratio == 1:
        raise ValueError("mask_ratio must lie below 1, got 1: a mask that drops everything leaves no student to train")


def check_masking(masking: str) -> None:
    """Raise ``ValueError`` unless ``masking`` is ``"channel"`` or ``"pixel"``."""
    if masking not in get_args(Masking):
        raise ValueError(f"masking must be 'channel' or 'pixel', got {masking!r}")


def check_levels(levels: Sequence[int]) -> None:
    """Raise ``ValueError`` unless ``levels`` are whole numbers of at least 1, largest first."""
    ordered = all(first > second for first, second in pairwise(levels))
    if not ordered or any(level != int(level) or level < 1 for level in levels):
        raise ValueError(f"levels must be whole numbers >= 1 in decreasing order, such as (4, 2, 1), got {levels!r}")


def check_margin(margin: Tensor) -> None:
    """Raise ``ValueError`` if a margin lies above zero; read only on the CPU and outside of torch.compile's tracing."""
    if margin.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if bool((margin > 0).any()):
        channel = int((margin > 0).nonzero()[0])
        raise ValueError(
            f"margin must be at or below 0 in every channel, got {float(margin[channel]):g} in channel {channel}: "
            "a margin is the mean of negative responses, see ofd_margin"
        )


def _check_alike(
    student: Tensor, teacher: Tensor, layout: str, *, at_least: int, at_most: int | None, index: int | None = None
) -> tuple[str, str]:
    """Check number of axes, type, batch size and device of a pair whose other sizes may differ; return both names."""
    suffix = "" if index is None else f"[{index}]"
    names = (f"student_features{suffix}", f"teacher_features{suffix}")
    for features, name in zip((student, teacher), names, strict=True):
        check_ndim(features, name, layout, at_least=at_least, at_most=at_most)
        check_floating(features, name)
    if student.ndim != teacher.ndim or student.shape[0] != teacher.shape[0]:
        raise ShapeError(
            f"{names[0]} and {names[1]} must have one batch size and one number of axes, got {tuple(student.shape)} "
            f"and {tuple(teacher.shape)}: tap places that see one batch, and reshape tokens or maps with an adapter"
        )
    check_same_device(student, teacher, *names)
    return names


def _check_pair(
    student: Tensor,
    teacher: Tensor,
    layout: str,
    *,
    at_least: int,
    at_most: int | None = None,
    index: int | None = None,
) -> None:
    """Check a pair that must have one shape."""
    suffix = "" if index is None else f"[{index}]"
    names = (f"student_features{suffix}", f"teacher_features{suffix}")
    for features, name in zip((student, teacher), names, strict=True):
        check_ndim(features, name, layout, at_least=at_least, at_most=at_most)
        check_floating(features, name)
    check_same_shape(student, teacher, *names)


def _check_maps(student: Tensor, teacher: Tensor, index: int | None = None) -> tuple[str, str]:
    return _check_alike(student, teacher, _MAPS, at_least=3, at_most=5, index=index)


def _check_channels(student: Tensor, teacher: Tensor, names: tuple[str, str]) -> None:
    if student.shape[1] != teacher.shape[1]:
        raise ShapeError(
            f"{names[0]} and {names[1]} must have one number of channels on axis 1, got {tuple(student.shape)} and "
            f"{tuple(teacher.shape)}: give the match an adapter, for example "
            f"ConvAdapter({student.shape[1]}, {teacher.shape[1]})"
        )


def _check_pooled(student: Tensor, teacher: Tensor) -> None:
    """Check a pair of which only spatial averages are compared: the spatial axes are free."""
    for features, name in ((student, "student_features"), (teacher, "teacher_features")):
        check_ndim(features, name, _ANY, at_least=2)
        check_floating(features, name)
    if student.shape[:2] != teacher.shape[:2]:
        raise ShapeError(
            f"student_features and teacher_features must agree in batch size and channels, got {tuple(student.shape)} "
            f"and {tuple(teacher.shape)}: give the match an adapter to the teacher's channels"
        )
    check_same_device(student, teacher, "student_features", "teacher_features")


def _check_vector(vector: Tensor, name: str, features: Tensor, features_name: str) -> None:
    """Check a vector with one entry per channel."""
    check_floating(vector, name)
    if vector.shape != features.shape[1:2]:
        raise ShapeError(
            f"{name} must have one entry per channel, shape ({features.shape[1]},), to fit {features_name} of shape "
            f"{tuple(features.shape)}, got {tuple(vector.shape)}"
        )
    check_same_device(features, vector, features_name, name)


def _check_classifier(weight: Tensor, features: Tensor) -> None:
    check_ndim(weight, "classifier_weight", "(K, C)", at_least=2, at_most=2)
    if weight.shape[1] != features.shape[1]:
        raise ShapeError(
            f"classifier_weight must have shape (K, {features.shape[1]}) to score features of shape "
            f"{tuple(features.shape)}, got {tuple(weight.shape)}: tap the maps that the teacher's classifier pools"
        )
    check_same_device(features, weight, "student_features", "classifier_weight")


def _check_sequences(student: Any, teacher: Any, *, at_least: int) -> None:
    for features, name in ((student, "student_features"), (teacher, "teacher_features")):
        if isinstance(features, Tensor):
            raise ShapeError(
                f"{name} must be a sequence of tensors, one per layer, got one of shape {tuple(features.shape)}: "
                "give the match a list of taps"
            )
    if len(student) != len(teacher) or len(student) < at_least:
        raise ShapeError(
            f"student_features and teacher_features must hold equally many layers, at least {at_least}, got "
            f"{[tuple(f.shape) for f in student]} and {[tuple(f.shape) for f in teacher]}: tap as many places on both"
        )


def _numbered(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> dict[str, Tensor]:
    """Name each tensor of two sequences for an error message."""
    return {
        **{f"student_features[{i}]": features for i, features in enumerate(student)},
        **{f"teacher_features[{i}]": features for i, features in enumerate(teacher)},
    }


def _pool_to(features: Tensor, size: list[int]) -> Tensor:
    return features if list(features.shape[2:]) == size else _POOLS[len(size)](features, size)


class _MaskedSquares(torch.autograd.Function):
    """Sum along one axis of the squared difference, without the dropped positions, in both directions.

    Composed of masked_fill, subtraction, square and sum, it takes twice the time; as a product with the mask, a NaN at
    a dropped position would reach the gradient.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, dropped: Tensor, dim: int) -> Tensor:
        difference = (student - teacher).masked_fill_(dropped, 0)
        ctx.save_for_backward(student, teacher, dropped, difference)
        ctx.dim = dim
        squares: Tensor = torch.linalg.vecdot(difference, difference, dim=dim)
        return squares

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        student, teacher, dropped, difference = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative needs the difference as a function of the student
            difference = (student - teacher).masked_fill(dropped, 0)
        return difference * (2 * gradient).unsqueeze(ctx.dim), None, None, None


def _masked_squares(student: Tensor, teacher: Tensor, mask: Tensor, *, dim: int) -> Tensor:
    """Squared distance along ``dim`` at every position, zero where the mask drops one."""
    dim %= student.ndim
    check_mask(mask, student.shape[:dim] + student.shape[dim + 1 :])
    squares: Tensor = _MaskedSquares.apply(student, teacher, (mask == 0).unsqueeze(dim), dim)
    return squares


def _mean_square(
    student_features: Tensor, teacher_features: Tensor, mask: Tensor | None, reduction: Reduction, *, dim: int
) -> Tensor:
    """Mean squared difference along ``dim``, reduced over the positions that count."""
    student, teacher = at_least_float32(student_features), at_least_float32(teacher_features.detach())
    if mask is not None:
        squares = _masked_squares(student, teacher, mask, dim=dim)
        return reduce_loss(squares / student.shape[dim], reduction, mask=mask)
    if reduction == "mean" and student.numel():
        return mse_loss(student, teacher)  # one pass instead of three
    return reduce_loss(mse_loss(student, teacher, reduction="none").mean(dim), reduction)


def _square_sums(values: Tensor) -> Tensor:
    """Sum of squares per sample, shape (N,)."""
    flat = values.flatten(1)
    sums: Tensor = torch.linalg.vecdot(flat, flat)  # one pass, where square and sum are two
    return sums


def _square_means(values: Tensor) -> Tensor:
    """Mean of squares per sample, shape (N,)."""
    return _square_sums(values) / math.prod(values.shape[1:])


def _global_pool(features: Tensor) -> Tensor:
    return features if features.ndim == 2 else features.flatten(2).mean(2)


def _attention(features: Tensor, power: float) -> Tensor:
    """Normalised attention over positions, shape (N, positions)."""
    strength = features.square() if power == 2 else features.abs().pow(power)
    return normalize(strength.mean(1).flatten(1), dim=1)


def _factor(features: Tensor, power: int | None) -> Tensor:
    """Normalised factor, flat per sample."""
    if power is not None:
        features = (features.square() if power == 2 else features.pow(power)).mean(1)
    return normalize(features.flatten(1), dim=1)


def _solution_flow(first: Tensor, second: Tensor) -> Tensor:
    """FSP matrix of two maps, shape (N, C_first, C_second)."""
    first, second = pool_to_smaller(first, second)
    first, second = first.flatten(2), second.flatten(2)
    return torch.bmm(first, second.mT) / max(first.shape[2], 1)


def _spatial_log_softmax(features: Tensor, temperature: float, mask: Tensor | None) -> Tensor:
    """Log-probabilities over positions, shape (N, C, positions); dropped positions have probability 0."""
    features = at_least_float32(features) / temperature
    if mask is not None:
        check_mask(mask, features.shape[:1] + features.shape[2:])
        # the most negative number, not -inf: where every position is dropped, -inf would make NaN
        features = features.masked_fill((mask == 0).unsqueeze(1), torch.finfo(features.dtype).min)
    return log_softmax(features.flatten(2), dim=2)


def _standardise(features: Tensor, epsilon: float) -> Tensor:
    """Zero mean and unit deviation per channel over the batch and all positions."""
    axes = [axis for axis in range(features.ndim) if axis != 1]
    deviation, mean = torch.std_mean(features, dim=axes, keepdim=True)
    return (features - mean) / (deviation + epsilon)


def _per_channel(vector: Tensor, features: Tensor) -> Tensor:
    """View a vector of shape (C,) so that it broadcasts along axis 1 of ``features``."""
    return vector.reshape(-1, *[1] * (features.ndim - 2))


def _add(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
