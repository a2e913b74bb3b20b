r"""D-FINE's losses: a score weighed by the quality of its box, edges as distributions, and layers that teach layers.

All work in float32 or better, take logits, and give a differentiable zero where nothing is matched.

Reference: Peng et al., D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement,
arXiv:2410.13842, section 4.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from limbeck_core.checks import check_finite, check_floating, check_non_negative, check_positive, check_same_shape
from limbeck_core.errors import ShapeError, TargetError
from limbeck_core.functional import kl_divergence_loss
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss
from limbeck_core.gather import all_sum, world_size
from limbeck_detection.dfine.regression import BinTarget


def varifocal_loss(
    logits: Tensor,
    target: Tensor,
    quality: Tensor,
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy of class scores against the quality of the box, with easy negatives weighed down.

    .. math:: L = - q \, (q \log p + (1 - q) \log (1 - p)), \qquad L_{neg} = - \alpha \, p^\gamma \log (1 - p)

    the first at the true class of a query with a box, with :math:`q` the IoU of its box; the second everywhere else.
    The factors :math:`q` and :math:`p^\gamma` carry no gradient.

    Args:
        logits: Raw scores, shape ``(..., C)``.
        target: True class of each query, shape ``(...)``, integers; ``C`` stands for no object.
        quality: IoU of the query's box with its true box in [0, 1], shape ``(...)``; ignored where there is no object.
            Gradients never flow into it.
        alpha: Weight of the negatives.
        gamma: How much easy negatives are weighed down.
        reduction: ``"none"`` gives the sum over classes of each query, shape ``(...)``; ``"mean"`` and ``"sum"`` reduce
            those. D-FINE divides the sum by the number of true boxes.

    Returns: The loss in nats.

    Raises:
        ShapeError: if the shapes do not fit.
        TargetError: if a class lies outside ``[0, C]`` (CPU), or ``target`` holds no integers.
        ValueError: if a hyper-parameter is out of range.
        NonFiniteError: if the loss is not finite (CPU).

    Reference: Zhang et al., VarifocalNet, arXiv:2008.13367, eq. 2, with the weights that D-FINE takes from RT-DETR.
    """
    check_floating(logits, "logits")
    check_non_negative(alpha, "alpha")
    check_non_negative(gamma, "gamma")
    check_reduction(reduction)
    _check_classes(logits, target)
    if quality.shape != target.shape:
        raise ShapeError(f"quality must have the shape of target, {tuple(target.shape)}, got {tuple(quality.shape)}")
    scores = at_least_float32(logits)
    classes = scores.shape[-1]
    positive = one_hot(target, classes + 1)[..., :classes].to(scores.dtype)
    soft = positive * quality.detach().to(scores.dtype).unsqueeze(-1)
    weight = alpha * scores.detach().sigmoid().pow(gamma) * (1 - positive) + soft
    per_query = binary_cross_entropy_with_logits(scores, soft, weight=weight, reduction="none").sum(-1)
    loss = reduce_loss(per_query, reduction)
    check_finite(loss, logits=logits, quality=quality)
    return loss


def _check_classes(logits: Tensor, target: Tensor) -> None:
    classes = logits.shape[-1]
    if target.is_floating_point() or target.dtype == torch.bool:
        raise TargetError(f"target must hold integer classes from 0 to {classes} (no object), got {target.dtype}")
    if target.shape != logits.shape[:-1]:
        raise ShapeError(
            f"target must have one class a query, shape {tuple(logits.shape[:-1])} for logits of shape "
            f"{tuple(logits.shape)}, got {tuple(target.shape)}"
        )
    if target.device.type == "cpu" and target.numel():
        lowest, highest = target.aminmax()
        if lowest.item() < 0 or highest.item() > classes:
            raise TargetError(
                f"target must hold classes from 0 to {classes - 1}, or {classes} for no object, got values from "
                f"{int(lowest)} to {int(highest)}: check the class list of the data set and num_classes of the model"
            )


def fine_grained_localization_loss(
    logits: Tensor, target: BinTarget, *, weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Cross-entropy of an edge's distribution against the two bins around its true shift.

    .. math:: L = w \, \big( \omega_{left} \, CE(z, n) + \omega_{right} \, CE(z, n + 1) \big)

    Args:
        logits: Scores of the bins, shape ``(N, bins)``, one row an edge.
        target: Bins and shares of each edge, from :func:`~limbeck_detection.dfine.regression.bbox2distance`.
        weight: Weight :math:`w` of each edge, shape ``(N,)``; D-FINE takes the IoU of the edge's box. Gradients never
            flow into it. Default: 1.
        reduction: ``"none"`` gives one value an edge, ``"mean"`` and ``"sum"`` reduce those; ``"mean"`` divides by the
            number of edges, whatever they weigh.

    Returns: The loss in nats.

    Raises:
        ShapeError: if the shapes do not fit.
        TargetError: if a bin lies outside the distribution (CPU).
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU).

    Reference: Peng et al., arXiv:2410.13842, eq. 4 (FGL).
    """
    check_floating(logits, "logits")
    check_reduction(reduction)
    if logits.ndim != 2:
        raise ShapeError(f"logits must have shape (N, bins), one row an edge, got {tuple(logits.shape)}")
    for name, part in (*target._asdict().items(), *(() if weight is None else (("weight", weight),))):
        if part.shape != logits.shape[:1]:
            raise ShapeError(f"{name} must have shape ({len(logits)},), one value an edge, got {tuple(part.shape)}")
    left = target.bins.long()
    bins = logits.shape[1]
    if left.device.type == "cpu" and left.numel() and (int(left.min()) < 0 or int(left.max()) > bins - 2):
        raise TargetError(
            f"bins must lie from 0 to {bins - 2}, since the bin after each counts too, got {int(left.min())} to "
            f"{int(left.max())}: the targets were made for another reg_max than {bins - 1}"
        )
    scores = at_least_float32(logits)
    # two gathers of one log-softmax; two calls of cross_entropy would normalise twice
    log_probabilities = scores.log_softmax(-1)
    chosen = log_probabilities.gather(1, torch.stack([left, left + 1], dim=1))
    shares = torch.stack([target.weight_left, target.weight_right], dim=1).to(scores.dtype)
    per_edge = -(chosen * shares).sum(-1)
    if weight is not None:
        per_edge = per_edge * weight.detach().to(scores.dtype)
    loss = reduce_loss(per_edge, reduction)
    check_finite(loss, logits=logits)
    return loss


class Balance(NamedTuple):
    """How much matched and unmatched items weigh in :func:`decoupled_distillation_focal_loss`.

    Args:
        matched: Weight of the mean over matched items, a scalar, 0 or more.
        unmatched: The same for the others.
    """

    matched: Tensor
    unmatched: Tensor


def square_root_balance(matched: Tensor) -> Balance:
    r"""Weigh each group by the square root of its size: :math:`\sqrt{K_m}` and :math:`\sqrt{K_u}`, over all ranks.

    Args:
        matched: Whether an item is matched, boolean, any shape.
    """
    kept = matched.bool()
    counts = all_sum(torch.stack([kept.sum(), (~kept).sum()]).double())
    roots = counts.sqrt()
    return Balance(roots[0], roots[1])


def decoupled_distillation_focal_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    matched: Tensor,
    weight: Tensor,
    temperature: float = 5.0,
    balance: Balance | None = None,
) -> Tensor:
    r"""A later decoder layer teaches an earlier one the distributions of its edges (D-FINE's GO-LSD).

    .. math:: L = \frac{\sqrt{K_m} \, \overline{\alpha_k KL_k} + \sqrt{K_u} \, \overline{\beta_k KL_k}}
                        {\sqrt{K_m} + \sqrt{K_u}}, \qquad
              KL_k = \tau^2 \, KL\big(\sigma(z_t/\tau) \,\|\, \sigma(z_s/\tau)\big)

    with one mean over matched items and one over the others, so that the few matched ones are not lost among the many
    others. The paper writes sums over items, its code takes means over each group; the released weight of 1.5 belongs
    to means, so means are taken. Nothing in it is particular to D-FINE: any detector whose layers predict distributions
    over one support can use it.

    Args:
        student_logits: Scores of the bins, shape ``(..., bins)``.
        teacher_logits: Same shape. Gradients never flow into it.
        matched: Whether an item belongs to a true box, boolean, shape ``(...)``.
        weight: Weight of each item, shape ``(...)``: D-FINE takes the IoU of the student layer's box for matched items
            and the teacher layer's largest class score for the others. Gradients never flow into it.
        temperature: Softness :math:`\tau > 0` of both distributions (unitless). Paper: ``T``.
        balance: Weights of the two means; default :func:`square_root_balance` of ``matched``. D-FINE's denoising
            queries take that of its ordinary ones.

    Returns: A scalar, in nats. With several ranks the means are over the items of all of them.

    Raises:
        ShapeError: if the shapes do not fit.
        ValueError: if ``temperature <= 0``.
        NonFiniteError: if the loss is not finite (CPU).

    Reference: Peng et al., arXiv:2410.13842, eq. 5-6 (DDF loss).
    """
    check_same_shape(
        student_logits,
        teacher_logits,
        "student_logits",
        "teacher_logits",
        hint="both layers must predict over the same edges and bins",
    )
    check_positive(temperature, "temperature")
    for tensor, name in ((matched, "matched"), (weight, "weight")):
        if tensor.shape != student_logits.shape[:-1]:
            raise ShapeError(
                f"{name} must have one value an item, shape {tuple(student_logits.shape[:-1])}, got "
                f"{tuple(tensor.shape)}"
            )
    bins = student_logits.shape[-1]
    divergence = kl_divergence_loss(
        student_logits.reshape(-1, bins), teacher_logits.reshape(-1, bins), temperature=temperature, reduction="none"
    )
    weighted = divergence * weight.detach().reshape(-1).to(divergence.dtype)
    kept = matched.reshape(-1).bool()
    shares = square_root_balance(matched) if balance is None else balance
    total = shares.matched + shares.unmatched
    loss = weighted.sum() * 0
    for group, share in ((kept, shares.matched), (~kept, shares.unmatched)):
        factor = torch.where(total > 0, share / total.clamp(min=1e-12), torch.zeros_like(total))
        loss = loss + _mean_over_ranks(weighted, group) * factor.to(divergence.dtype)
    check_finite(loss, weight=weight)
    return loss


def _mean_over_ranks(values: Tensor, group: Tensor) -> Tensor:
    """Mean over a group that averages, over ranks, to the mean over the group of all ranks; 0 for an empty group."""
    count = (all_sum(group.sum().double()) / world_size()).clamp(min=1e-12)
    return torch.where(group, values, torch.zeros_like(values)).sum() / count.to(values.dtype)


class VarifocalLoss(nn.Module):
    """Module twin of :func:`varifocal_loss`.

    Args:
        alpha: Weight of the negatives.
        gamma: How much easy negatives are weighed down.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over queries.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, alpha: float = 0.75, gamma: float = 2.0, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_non_negative(alpha, "alpha")
        check_non_negative(gamma, "gamma")
        check_reduction(reduction)
        self.alpha = alpha
        self.gamma = gamma
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Tensor, quality: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return varifocal_loss(logits, target, quality, alpha=self.alpha, gamma=self.gamma, reduction=self.reduction)


class FineGrainedLocalizationLoss(nn.Module):
    """Module twin of :func:`fine_grained_localization_loss`.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over edges.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, logits: Tensor, target: BinTarget, *, weight: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return fine_grained_localization_loss(logits, target, weight=weight, reduction=self.reduction)


class DecoupledDistillationFocalLoss(nn.Module):
    """Module twin of :func:`decoupled_distillation_focal_loss`.

    Args:
        temperature: Softness of both distributions, above 0.

    Raises:
        ValueError: if ``temperature <= 0``.
    """

    def __init__(self, temperature: float = 5.0) -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        self.temperature = temperature

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        *,
        matched: Tensor,
        weight: Tensor,
        balance: Balance | None = None,
    ) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return decoupled_distillation_focal_loss(
            student_logits,
            teacher_logits,
            matched=matched,
            weight=weight,
            temperature=self.temperature,
            balance=balance,
        )
