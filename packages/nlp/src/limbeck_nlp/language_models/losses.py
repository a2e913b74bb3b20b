"""Losses of language models that the core lacks: the label-smoothed cross-entropy of tokens, and a policy gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from limbeck_core.checks import check_between, check_floating, check_ndim
from limbeck_core.errors import ShapeError, TargetError
from limbeck_core.functional import generalized_jsd_loss
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.functional.reduction import Reduction, check_mask, check_reduction, reduce_loss
from limbeck_nlp.data.dataset import IGNORED


def token_cross_entropy_loss(
    student_logits: Tensor, target: Tensor, *, smoothing: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    r"""Cross-entropy of the next token with label smoothing in fairseq's form.

    .. math:: L = -(1 - \epsilon - \epsilon') \log p_y - \epsilon' \sum_v \log p_v, \quad
        \epsilon' = \epsilon / (V - 1)

    so that the wrong tokens share :math:`\epsilon`; PyTorch's ``label_smoothing`` shares it among all V.

    Args:
        student_logits: Raw scores, shape ``(..., V)``; the vocabulary is the last axis.
        target: Ids, shape ``(...)``; -100 is left out. Position i of it is what position i of the logits predicts, so
            nothing is shifted here.
        smoothing: :math:`\epsilon` in [0, 1).
        reduction: ``"mean"`` is over the targets that count, ``"none"`` gives one value a position.

    Returns:
        Loss in nats; a differentiable zero if no target counts.

    Raises:
        ShapeError: if the shapes do not fit.
        TargetError: if a target is no id of the vocabulary.
        ValueError: if ``smoothing`` or ``reduction`` is out of range.

    Reference:
        Szegedy et al., Rethinking the Inception Architecture for Computer Vision, arXiv:1512.00567, section 7, in the
        form of fairseq's label-smoothed criterion.

    >>> token_cross_entropy_loss(torch.zeros(1, 3, 4), torch.tensor([[1, -100, 2]]))  # log 4
    tensor(1.3863)
    """
    check_ndim(student_logits, "student_logits", "(..., V) with at least one leading axis", at_least=2)
    check_floating(student_logits, "student_logits")
    check_between(smoothing, "smoothing", 0.0, 1.0)
    check_reduction(reduction)
    if target.shape != student_logits.shape[:-1]:
        raise ShapeError(
            f"target must have one id a position, shape {tuple(student_logits.shape[:-1])}, got {tuple(target.shape)}"
        )
    size = student_logits.shape[-1]
    kept = target != IGNORED
    if not torch.compiler.is_compiling() and bool((kept & ((target < 0) | (target >= size))).any()):
        wrong = int(target[kept & ((target < 0) | (target >= size))][0])
        raise TargetError(
            f"target holds the id {wrong}, the vocabulary of the logits has {size}: use the model's own tokenizer, and "
            f"{IGNORED} for what does not count"
        )
    log_probabilities = log_softmax(at_least_float32(student_logits), dim=-1)
    index = torch.where(kept, target, torch.zeros_like(target)).unsqueeze(-1)
    loss = -log_probabilities.gather(-1, index).squeeze(-1)
    if smoothing:
        share = smoothing / (size - 1)
        loss = (1 - smoothing - share) * loss - share * log_probabilities.sum(-1)
    return reduce_loss(loss, reduction, mask=kept)


class TokenCrossEntropyLoss(nn.Module):
    """Module twin of :func:`token_cross_entropy_loss`; the ``task_loss`` of a language model.

    Args:
        smoothing: Mass that the wrong tokens share.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over the targets that count.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, smoothing: float = 0.0, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_between(smoothing, "smoothing", 0.0, 1.0)
        check_reduction(reduction)
        self.smoothing = smoothing
        self.reduction = reduction

    def forward(self, student_logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return token_cross_entropy_loss(student_logits, target, smoothing=self.smoothing, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"smoothing={self.smoothing}, reduction={self.reduction!r}"


def reverse_kl_policy_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    discount: float = 1.0,
    normalize: bool = True,
    single_step: bool = True,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Policy gradient of the reverse divergence on text that the student wrote (MiniLLM).

    .. math:: L = - \frac1T \sum_t A_t \log p_s(y_t) + KL(p_s \| p_t)_t, \quad
        A_t = \frac{\sum_{i \ge t} \gamma^{i-t} r_i}{\sum_{i \ge t} \gamma^{i-t}}, \quad
        r_i = \log p_t(y_i) - \log p_s(y_i)

    The rewards :math:`r` and advantages :math:`A` carry no gradient. Mixing in text sampled with the teacher and
    clipping, which the paper adds, are left out, as in the trainer of TRL.

    Args:
        student_logits: Shape ``(B, L, V)``; position i predicts ``target[:, i]``.
        teacher_logits: Same shape. Gradients never flow into it.
        target: The tokens that the student drew, shape ``(B, L)``; -100 for the prompt and padding.
        discount: :math:`\gamma` in [0, 1]; 0 rewards each token for itself.
        normalize: Divide by the sum of the discounts, so that long texts weigh no more than short ones.
        single_step: Add the divergence of each position, whose gradient needs no sampling.
        reduction: ``"mean"`` is over the tokens that count, ``"none"`` gives one value a position.

    Returns:
        Loss in nats; its value means little, its gradient is that of the reverse divergence of whole texts.

    Raises:
        ShapeError: if the shapes do not fit.
        ValueError: if ``discount`` or ``reduction`` is out of range.

    Reference:
        Gu et al., MiniLLM: Knowledge Distillation of Large Language Models, arXiv:2306.08543, section 2.2 and 2.3.
    """
    check_between(discount, "discount", 0.0, 1.0)
    check_reduction(reduction)
    check_ndim(student_logits, "student_logits", "(B, L, V)", at_least=3, at_most=3)
    if teacher_logits.shape != student_logits.shape:
        raise ShapeError(
            f"student_logits and teacher_logits must have one shape, got {tuple(student_logits.shape)} and "
            f"{tuple(teacher_logits.shape)}: feed both models the same tokens, and cut a padded vocabulary"
        )
    check_mask(target, student_logits.shape[:-1])
    kept = target != IGNORED
    index = torch.where(kept, target, torch.zeros_like(target)).unsqueeze(-1)
    log_student = log_softmax(at_least_float32(student_logits), dim=-1).gather(-1, index).squeeze(-1)
    with torch.no_grad():
        log_teacher = log_softmax(at_least_float32(teacher_logits), dim=-1).gather(-1, index).squeeze(-1)
        reward = torch.where(kept, log_teacher - log_student, torch.zeros_like(log_student))
        advantage, total, weight = (
            torch.zeros_like(reward),
            torch.zeros_like(reward[:, 0]),
            torch.zeros_like(reward[:, 0]),
        )
        for t in reversed(range(reward.shape[1])):
            total = reward[:, t] + discount * total
            weight = kept[:, t] + discount * weight
            advantage[:, t] = total / weight.clamp_min(1) if normalize else total
    loss = reduce_loss(-advantage * log_student, reduction, mask=kept)
    if not single_step:
        return loss
    return loss + generalized_jsd_loss(student_logits, teacher_logits, beta=1.0, mask=kept, reduction=reduction)
