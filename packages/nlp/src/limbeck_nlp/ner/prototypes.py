"""Class prototypes: means of features by label, their moving averages, and what is learnt from distances to them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize, softmax

from limbeck_core.checks import check_between, check_finite, check_floating, check_ndim, check_positive
from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.functional.reduction import Reduction, blank_masked, check_reduction, reduce_loss
from limbeck_nlp.data.dataset import IGNORED

_EPSILON = 1e-8


class ClassMeans(NamedTuple):
    """Mean features of each class.

    Args:
        means: Unit vectors, shape ``(C, H)``; zero for a class that does not occur.
        present: Classes that occur, shape ``(C,)``.
    """

    means: Tensor
    present: Tensor


def class_means(embeddings: Tensor, labels: Tensor, num_classes: int) -> ClassMeans:
    """Return the direction of the mean embedding of each class, with its gradient.

    Args:
        embeddings: Shape ``(N, H)``.
        labels: Shape ``(N,)``; -100 is left out.
        num_classes: C.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    check_ndim(embeddings, "embeddings", "(N, H)", at_least=2, at_most=2)
    check_floating(embeddings, "embeddings")
    if labels.shape != embeddings.shape[:1]:
        raise ShapeError(f"labels must have shape ({len(embeddings)},), got {tuple(labels.shape)}")
    kept = labels != IGNORED
    vectors = at_least_float32(embeddings[kept])
    sums = vectors.new_zeros(num_classes, embeddings.shape[1]).index_add(0, labels[kept], vectors)
    counts = torch.bincount(labels[kept], minlength=num_classes)
    return ClassMeans(normalize(sums / counts.clamp_min(1).unsqueeze(1), dim=1, eps=_EPSILON), counts > 0)


class Prototypes(nn.Module):
    r"""A moving average of the class means, :math:`\mu_c \leftarrow |m \mu_c + (1 - m) \bar z_c|`.

    A class that a batch lacks stays as it is; one seen for the first time takes the batch's mean.

    Args:
        num_classes: C.
        width: Length H of the features.
        momentum: m in [0, 1].

    Raises:
        ValueError: if ``momentum`` is out of range.
    """

    def __init__(self, num_classes: int, width: int, *, momentum: float = 0.99) -> None:
        super().__init__()
        check_between(momentum, "momentum", 0.0, 1.0)
        self.momentum = momentum
        self.register_buffer("vectors", torch.zeros(num_classes, width))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))
        self.vectors: Tensor
        self.seen: Tensor

    @torch.no_grad()
    def update(self, found: ClassMeans) -> None:
        """Move towards the means of a batch."""
        moved = self.momentum * self.vectors + (1 - self.momentum) * found.means
        moved = torch.where(self.seen.unsqueeze(1), moved, found.means.to(moved.dtype))
        moved = normalize(moved, dim=1, eps=_EPSILON)
        self.vectors.copy_(torch.where(found.present.unsqueeze(1), moved, self.vectors))
        self.seen |= found.present


def prototype_contrast_loss(
    anchors: ClassMeans, positives: Tensor, others: Tensor, positives_seen: Tensor, others_seen: Tensor, *,
    temperature: float = 0.1, reduction: Reduction = "mean",
) -> Tensor:  # fmt: skip
    r"""Pull the means of a batch to the other language's prototypes of their class, away from all other classes.

    .. math:: L_c = -\log \frac{e^{s(p_c, \mu_c)/\tau}}
        {e^{s(p_c, \mu_c)/\tau} + \sum_{c' \ne c} (e^{s(p_c, \mu_{c'})/\tau} + e^{s(p_c, \nu_{c'})/\tau})}

    with cosines s. Every class weighs the same, so that O, which most words are, does not drown the rest. The formula
    is a choice of ours: the abstract of the paper says that distances between source and target prototypes are adjusted
    by contrast; its text was not available.

    Args:
        anchors: p, the means of a batch in one language, with gradient.
        positives: :math:`\mu`, stored prototypes of the other language, shape ``(C, H)``. No gradient flows into them.
        others: :math:`\nu`, stored prototypes of the anchors' own language, shape ``(C, H)``.
        positives_seen: Classes of :math:`\mu` that have been seen, shape ``(C,)``.
        others_seen: The same of :math:`\nu`.
        temperature: :math:`\tau > 0`.
        reduction: ``"mean"`` over the classes that occur in the batch and have a positive.

    Returns:
        Loss in nats; a differentiable zero if no class counts.

    Raises:
        ShapeError: if the shapes differ.
        ValueError: if ``temperature`` or ``reduction`` is out of range.

    Reference:
        Ge et al., ProKD: An Unsupervised Prototypical Knowledge Distillation Network for Zero-Resource Cross-Lingual
        Named Entity Recognition, arXiv:2301.08855, abstract.
    """
    check_positive(temperature, "temperature")
    check_reduction(reduction)
    if not anchors.means.shape == positives.shape == others.shape:
        raise ShapeError(
            f"anchors, positives and others must have one shape (C, H), got {tuple(anchors.means.shape)}, "
            f"{tuple(positives.shape)} and {tuple(others.shape)}"
        )
    own = torch.eye(len(positives), dtype=torch.bool, device=positives.device)
    towards = (anchors.means @ positives.detach().to(anchors.means.dtype).T / temperature).masked_fill(
        ~positives_seen.unsqueeze(0) & ~own, -torch.inf
    )
    away = (anchors.means @ others.detach().to(anchors.means.dtype).T / temperature).masked_fill(
        own | ~others_seen.unsqueeze(0), -torch.inf
    )
    loss = -log_softmax(torch.cat([towards, away], dim=1), dim=1).diagonal()
    return reduce_loss(loss, reduction, mask=anchors.present & positives_seen)


def probability_mse_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, mask: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Squared error between probabilities, the mean over classes.

    .. math:: L = \frac1C \sum_c (\sigma(z_s)_c - \sigma(z_t)_c)^2

    Args:
        student_logits: Raw scores, shape ``(..., C)``; the classes are the last axis.
        teacher_logits: Same shape. Gradients never flow into it.
        mask: Tokens that count, shape ``(...)``. Default: all.
        reduction: ``"none"`` gives one value a token, ``"mean"`` is over those that count.

    Raises:
        ShapeError: if the shapes differ.
        ValueError: if ``reduction`` is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming the logits that hold NaN or infinity.

    Reference:
        Wu et al., Single-/Multi-Source Cross-Lingual NER via Teacher-Student Learning on Unlabeled Data in Target
        Language, arXiv:2004.12440, section 3.1.
    """
    check_reduction(reduction)
    check_floating(student_logits, "student_logits")
    if student_logits.shape != teacher_logits.shape:
        raise ShapeError(
            f"student_logits and teacher_logits must have one shape, got {tuple(student_logits.shape)} and "
            f"{tuple(teacher_logits.shape)}: both models must have the same labels in the same order"
        )
    student = blank_masked(at_least_float32(student_logits), mask, dim=-1)
    teacher = blank_masked(at_least_float32(teacher_logits.detach()), mask, dim=-1)
    loss = reduce_loss((softmax(student, -1) - softmax(teacher, -1)).square().mean(-1), reduction, mask=mask)
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss


class ProbabilityMSELoss(nn.Module):
    """Module twin of :func:`probability_mse_loss`.

    Args:
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.

    Raises:
        ValueError: if ``reduction`` is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction: Reduction = reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return probability_mse_loss(student_logits, teacher_logits, mask=mask, reduction=self.reduction)

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"reduction={self.reduction!r}"


@torch.no_grad()
def prototype_pseudo_labels(
    embeddings: Tensor,
    teacher_logits: Tensor,
    prototypes: Prototypes,
    *,
    temperature: float = 0.5,
    threshold: float = 0.5,
) -> Tensor:
    r"""Correct a teacher's labels by how near the student's features are to the prototypes.

    .. math:: r \propto \sigma(z_t)_c \cdot \sigma(-\lVert z - \nu_c \rVert / \tau)_c

    A choice of ours, as :func:`prototype_contrast_loss`. As :math:`\tau` grows, the teacher alone decides: plain
    self-training.

    Args:
        embeddings: The student's features z, shape ``(N, H)``; taken as unit vectors.
        teacher_logits: Shape ``(N, C)``.
        prototypes: :math:`\nu`; a class not yet seen has no share in r.
        temperature: :math:`\tau > 0` of the distances.
        threshold: Tokens whose largest r is below it get no label.

    Returns:
        Labels, shape ``(N,)``; -100 where nothing is sure.

    Raises:
        ValueError: if ``temperature`` or ``threshold`` is out of range.
    """
    check_positive(temperature, "temperature")
    check_between(threshold, "threshold", 0.0, 1.0)
    if not bool(prototypes.seen.any()) or not len(embeddings):
        return torch.full((len(embeddings),), IGNORED, dtype=torch.int64, device=embeddings.device)
    units = normalize(at_least_float32(embeddings), dim=1, eps=_EPSILON)
    distances = torch.cdist(units, prototypes.vectors.to(units.dtype))
    near = log_softmax((-distances / temperature).masked_fill(~prototypes.seen, -torch.inf), dim=1)
    together = softmax(near + log_softmax(at_least_float32(teacher_logits), dim=1), dim=1)
    sure, labels = together.max(1)
    return torch.where(sure >= threshold, labels, torch.full_like(labels, IGNORED))
