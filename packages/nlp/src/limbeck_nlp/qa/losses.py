"""Self-distillation of answer spans: a divergence weighted by how well the teacher ranks the true position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from limbeck_core.checks import check_floating, check_logits, check_ndim
from limbeck_core.errors import ShapeError
from limbeck_core.functional import generalized_jsd_loss, kl_divergence_loss
from limbeck_core.functional.reduction import Reduction, check_mask, check_reduction, reduce_loss

Direction = Literal["forward", "reverse", "symmetric"]
Precision = Literal["first_hit", "full"]
Weighting = Literal["batch", "sample", "none"]
_SIDES = ("start", "end")


def average_precision_at_k(
    teacher_logits: Tensor,
    target: Tensor,
    *,
    k: int = 10,
    tolerance: int = 5,
    ap_mode: Precision = "first_hit",
    mask: Tensor | None = None,
) -> Tensor:
    r"""How high a model ranks the true position among its k likeliest: 1 at the top, 0 if it is not there.

    A position hits if it lies in :math:`[y - c, y + c)` for the tolerance c, half open as in the released code.

    Args:
        teacher_logits: Scores of each position, shape ``(B, L)``.
        target: True positions, shape ``(B,)``; one outside of ``[0, L)`` (such as -100) is never hit.
        k: Positions looked at; fewer where the sequence is shorter.
        tolerance: c in tokens; 0 asks for the very position.
        ap_mode: ``"first_hit"`` is 1 / rank of the first hit, which the paper's code computes under the name mAP@k;
            ``"full"`` averages the precision at every hit.
        mask: Positions that can hold an answer, shape ``(B, L)``. Default: all.

    Returns:
        One value in [0, 1] for each row, shape ``(B,)``, without gradient.

    Raises:
        ShapeError: if the shapes do not fit.
        ValueError: if ``k``, ``tolerance`` or ``ap_mode`` is out of range.

    Reference:
        Carrino et al., Promoting Generalized Cross-lingual Question Answering in Few-resource Scenarios via
        Self-knowledge Distillation, arXiv:2309.17134, section 3.

    >>> average_precision_at_k(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([1]), tolerance=0)
    tensor([0.5000])
    """
    _check_ranking(k, tolerance, ap_mode)
    check_ndim(teacher_logits, "teacher_logits", "(B, L)", at_least=2, at_most=2)
    check_floating(teacher_logits, "teacher_logits")
    if target.shape != teacher_logits.shape[:1]:
        raise ShapeError(
            f"target must have one position a row, shape ({len(teacher_logits)},), got {tuple(target.shape)}"
        )
    logits = _banned(teacher_logits.detach(), mask)
    length = logits.shape[1]
    best = logits.topk(min(k, length), dim=1)
    truth = target.unsqueeze(1)
    low, high = (truth - tolerance, truth + tolerance) if tolerance else (truth, truth + 1)
    hit = (best.indices >= low) & (best.indices < high) & (best.values > -torch.inf)
    hit &= (truth >= 0) & (truth < length)
    rank = torch.arange(1, hit.shape[1] + 1, device=hit.device)
    relevant = hit.to(torch.promote_types(logits.dtype, torch.float32))
    precision = relevant.cumsum(1) / rank * relevant
    if ap_mode == "full":
        return precision.sum(1) / relevant.sum(1).clamp_min(1)
    first = hit & (hit.cumsum(1) == 1)
    return (first / rank).sum(1).to(relevant.dtype)


def span_distillation_loss(
    student_logits: Sequence[Tensor],
    teacher_logits: Sequence[Tensor],
    target: Tensor,
    *,
    mask: Tensor | None = None,
    temperature: float = 2.0,
    direction: Direction = "forward",
    weighting: Weighting = "batch",
    k: int = 10,
    tolerance: int = 5,
    ap_mode: Precision = "first_hit",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Divergence between two models' spans, trusted as far as the teacher ranks the true positions well.

    .. math:: L = \alpha \cdot \tfrac12 \sum_{side} \tau^2 \, KL(p_t \,\|\, p_s), \quad
        \alpha = \tfrac12 (mAP@k_{start} + mAP@k_{end})

    :math:`\alpha` carries no gradient.

    Args:
        student_logits: Scores of start and end, each ``(B, L)``.
        teacher_logits: The same. Gradients never flow into them.
        target: True start and end, shape ``(B, 2)``.
        mask: Positions that can hold an answer, shape ``(B, L)``; the others take no part in the softmax. The released
            code has no mask, so that padding gets some of the teacher's mass. A row without any position counts
            nothing.
        temperature: Softness :math:`\tau > 0`.
        direction: ``"forward"`` is :math:`KL(p_t \,\|\, p_s)`, the paper's; ``"reverse"`` the other, ``"symmetric"``
            their sum.
        weighting: :math:`\alpha` of the whole ``"batch"`` as in the paper, of each ``"sample"``, or 1 (``"none"``).
        k: See :func:`average_precision_at_k`, as for ``tolerance`` and ``ap_mode``.
        tolerance: See there.
        ap_mode: See there.
        reduction: ``"none"`` gives one value a row.

    Returns:
        Loss in nats; a differentiable zero for an empty batch.

    Raises:
        ShapeError: if the shapes do not fit.
        ValueError: if an argument is out of range.

    Reference:
        Carrino et al., arXiv:2309.17134, section 3, and the released code.
    """
    return _span_distillation(
        student_logits,
        teacher_logits,
        target,
        mask=mask,
        temperature=temperature,
        direction=direction,
        weighting=weighting,
        k=k,
        tolerance=tolerance,
        ap_mode=ap_mode,
        reduction=reduction,
    )[0]


def _span_distillation(
    student_logits: Sequence[Tensor],
    teacher_logits: Sequence[Tensor],
    target: Tensor,
    *,
    mask: Tensor | None,
    temperature: float,
    direction: Direction,
    weighting: Weighting,
    k: int,
    tolerance: int,
    ap_mode: Precision,
    reduction: Reduction,
) -> tuple[Tensor, Tensor]:
    _check_options(direction, weighting)
    check_reduction(reduction)
    for name, logits in (("student_logits", student_logits), ("teacher_logits", teacher_logits)):
        if len(logits) != len(_SIDES):
            raise ShapeError(f"{name} must be two tensors (B, L), start and end, got {len(logits)}")
    if target.shape != (len(student_logits[0]), len(_SIDES)):
        raise ShapeError(
            f"target must hold start and end of each row, shape ({len(student_logits[0])}, 2), got "
            f"{tuple(target.shape)}"
        )
    total: Tensor | None = None
    precision = []
    kept = None if mask is None else mask.bool().any(1)
    for side, (student, teacher) in enumerate(zip(student_logits, teacher_logits, strict=True)):
        check_logits(student, teacher)
        ours, theirs = _banned(student, mask), _banned(teacher.detach(), mask)
        loss = _divergence(ours, theirs, kept, temperature, direction)
        total = loss if total is None else total + loss
        precision.append(
            average_precision_at_k(teacher, target[:, side], k=k, tolerance=tolerance, ap_mode=ap_mode, mask=mask)
        )
    alpha = torch.stack(precision).mean(0)
    coefficient = reduce_loss(alpha, "mean", mask=kept)
    weight = {"batch": coefficient, "sample": alpha}.get(weighting, torch.ones_like(coefficient))
    per_row = (total if total is not None else student_logits[0].sum(1)) / len(_SIDES) * weight
    return reduce_loss(per_row, reduction, mask=kept), coefficient


def _divergence(
    student: Tensor, teacher: Tensor, kept: Tensor | None, temperature: float, direction: Direction
) -> Tensor:
    loss: Tensor | None = None
    if direction != "reverse":
        loss = kl_divergence_loss(student, teacher, temperature=temperature, mask=kept, reduction="none")
    if direction != "forward":
        back = generalized_jsd_loss(student, teacher, beta=1.0, temperature=temperature, mask=kept, reduction="none")
        back = back * temperature**2
        return back if loss is None else loss + back
    return loss if loss is not None else student.sum(1)


def _banned(logits: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return logits
    check_mask(mask, logits.shape)
    return logits.masked_fill(~mask.bool(), -torch.inf)


def _check_ranking(k: int, tolerance: int, ap_mode: str) -> None:
    if k < 1 or tolerance < 0:
        raise ValueError(f"k must be at least 1 and tolerance at least 0, got {k} and {tolerance}")
    if ap_mode not in get_args(Precision):
        raise ValueError(f"ap_mode must be one of {', '.join(get_args(Precision))}, got {ap_mode!r}")


def _check_options(direction: str, weighting: str) -> None:
    for name, value, known in (("direction", direction, Direction), ("weighting", weighting, Weighting)):
        if value not in get_args(known):
            raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {value!r}")


class SpanDistillationLoss(nn.Module):
    """Module twin of :func:`span_distillation_loss`; ``coefficient`` holds the last batch's alpha.

    Tap start and end as a sequence: ``student=(Tap("", pick="start_logits"), Tap("", pick="end_logits"))``.

    Args:
        temperature: See the function, as for the others.
        direction: See there.
        weighting: See there.
        k: See there.
        tolerance: See there.
        ap_mode: See there.
        reduction: See there.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        *,
        temperature: float = 2.0,
        direction: Direction = "forward",
        weighting: Weighting = "batch",
        k: int = 10,
        tolerance: int = 5,
        ap_mode: Precision = "first_hit",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        _check_ranking(k, tolerance, ap_mode)
        _check_options(direction, weighting)
        check_reduction(reduction)
        self.temperature = temperature
        self.direction: Direction = direction
        self.weighting: Weighting = weighting
        self.k = k
        self.tolerance = tolerance
        self.ap_mode: Precision = ap_mode
        self.reduction: Reduction = reduction
        self.coefficient: Tensor | None = None

    def forward(
        self,
        student_logits: Sequence[Tensor],
        teacher_logits: Sequence[Tensor],
        target: Tensor,
        *,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss; shapes as in the function."""
        loss, self.coefficient = _span_distillation(
            student_logits,
            teacher_logits,
            target,
            mask=mask,
            temperature=self.temperature,
            direction=self.direction,
            weighting=self.weighting,
            k=self.k,
            tolerance=self.tolerance,
            ap_mode=self.ap_mode,
            reduction=self.reduction,
        )
        return loss

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        names = ("temperature", "direction", "weighting", "k", "tolerance", "ap_mode", "reduction")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
