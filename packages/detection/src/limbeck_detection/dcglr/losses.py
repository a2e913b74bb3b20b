"""The contrast between the clouds of a batch that DCGLR's name speaks of, in the two forms it may have had."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from limbeck_core.checks import check_between, check_finite, check_ndim, check_positive
from limbeck_core.errors import ShapeError
from limbeck_core.functional import moving_center
from limbeck_core.functional.precision import at_least_float32, without_autocast
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss
from limbeck_core.functional.relations import unit_vectors


def n_pair_contrast_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    center: Tensor | None = None,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    scale: float = 64.0,
    teacher_views: int = 2,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Which cloud of the batch is it? N-pair loss between the teacher's distributions and the student's scores.

    .. math:: L = \frac{1}{G V B} \sum_{g, v, b} CE\big( (64 \, \langle q_{gb}, s_{vb'} / \tau_s \rangle)_{b'}, b \big),
        \qquad q = \operatorname{softmax}((t - c) / \tau_t)

    The anchor is the teacher's distribution of a cloud; the positive is any view of the same cloud by the student, that
    which the teacher saw included; negatives are the same view of the other clouds of this process.

    Args:
        student_logits: Scores of V views of B clouds, view by view, shape ``(V * B, K)``.
        teacher_logits: Scores of ``teacher_views`` views of the same clouds, ``(G * B, K)``. Gradients never flow into
            it.
        center: Centre :math:`c`, ``(K,)``. Default: zero.
        student_temperature: :math:`\tau_s > 0`.
        teacher_temperature: :math:`\tau_t > 0`.
        scale: Factor of the products, above 0.
        teacher_views: Number G of the teacher's views.
        reduction: ``"none"`` gives one value per cloud, shape ``(B,)``: the mean over its pairs of views.

    Returns: The loss in nats; 0 where the batch holds one cloud.

    Raises:
        ShapeError: if shapes do not fit together.
        ValueError: if a hyper-parameter is out of range.
        NonFiniteError: if the loss is not finite (CPU), naming the scores that hold NaN or infinity.

    Reference: code of POS-BERT, the successor of Fu et al., arXiv:2202.04241, where it is an option that is off; the
        N-pair loss of Rao et al., PointGLR, arXiv:2003.12971. DCGLR's own formula is not known.
    """
    for name, value in (
        ("student_temperature", student_temperature),
        ("teacher_temperature", teacher_temperature),
        ("scale", scale),
        ("teacher_views", teacher_views),
    ):
        check_positive(value, name)
    check_reduction(reduction)
    clouds = _check_views(student_logits, teacher_logits, teacher_views)
    if student_logits.shape[1] != teacher_logits.shape[1]:
        raise ShapeError(
            f"student_logits {tuple(student_logits.shape)} and teacher_logits {tuple(teacher_logits.shape)} must score "
            "the same prototypes"
        )
    if not clouds:
        return reduce_loss(student_logits.sum(1), reduction)
    with without_autocast(student_logits):
        teacher = at_least_float32(teacher_logits.detach())
        teacher = teacher if center is None else teacher - center
        anchors = (teacher / teacher_temperature).softmax(1)
        scores = at_least_float32(student_logits) * (scale / student_temperature)
        scores = scores.view(-1, clouds, scores.shape[1])
        products = torch.einsum("gk,vbk->gvb", anchors.to(scores.dtype), scores)
        loss = _tell_apart(products, clouds, reduction)
    check_finite(loss, student_logits=student_logits, teacher_logits=teacher_logits)
    return loss


def info_nce_loss(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    *,
    temperature: float = 0.1,
    teacher_views: int = 2,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Which cloud of the batch is it? InfoNCE between embeddings of length 1.

    As :func:`n_pair_contrast_loss` with :math:`\cos(f_{gb}, f_{vb'}) / \tau` for the products.

    Args:
        student_embeddings: V views of B clouds, view by view, shape ``(V * B, D)``.
        teacher_embeddings: ``teacher_views`` views of the same clouds, ``(G * B, D)``. Gradients never flow into it.
        temperature: :math:`\tau > 0`.
        teacher_views: Number G of the teacher's views.
        reduction: ``"none"`` gives one value per cloud.

    Returns: The loss in nats; 0 where the batch holds one cloud.

    Raises:
        ShapeError: if shapes do not fit together.
        ValueError: if a hyper-parameter is out of range.
        NonFiniteError: if the loss is not finite (CPU), naming the embeddings that hold NaN or infinity.

    Reference: van den Oord et al., Representation Learning with Contrastive Predictive Coding, arXiv:1807.03748.
    """
    check_positive(temperature, "temperature")
    check_positive(teacher_views, "teacher_views")
    check_reduction(reduction)
    clouds = _check_views(student_embeddings, teacher_embeddings, teacher_views)
    if student_embeddings.shape[1] != teacher_embeddings.shape[1]:
        raise ShapeError(
            f"student_embeddings {tuple(student_embeddings.shape)} and teacher_embeddings "
            f"{tuple(teacher_embeddings.shape)} must have one width"
        )
    if not clouds:
        return reduce_loss(student_embeddings.sum(1), reduction)
    with without_autocast(student_embeddings):
        student, anchors = unit_vectors(student_embeddings), unit_vectors(teacher_embeddings.detach())
        student = student.view(-1, clouds, student.shape[1]) / temperature
        loss = _tell_apart(torch.einsum("gk,vbk->gvb", anchors.to(student.dtype), student), clouds, reduction)
    check_finite(loss, student_embeddings=student_embeddings, teacher_embeddings=teacher_embeddings)
    return loss


def _check_views(student: Tensor, teacher: Tensor, teacher_views: int) -> int:
    """Number of clouds."""
    for name, value in (("student", student), ("teacher", teacher)):
        check_ndim(value, f"{name}_logits or {name}_embeddings", "(views * B, K)", at_least=2, at_most=2)
    clouds = len(teacher) // teacher_views
    if (
        len(teacher) % teacher_views
        or (clouds and (len(student) % clouds or not len(student)))
        or (not clouds and len(student))
    ):
        raise ShapeError(
            f"the teacher's rows {tuple(teacher.shape)} must be {teacher_views} views of each cloud, and the student's "
            f"{tuple(student.shape)} a whole number of views of the same clouds"
        )
    return clouds


def _tell_apart(products: Tensor, clouds: int, reduction: Reduction) -> Tensor:
    """Cross-entropy of products ``(G * B, V, B)`` against each anchor's own cloud."""
    own = torch.arange(clouds, device=products.device).repeat(len(products) // clouds)
    each = cross_entropy(products.transpose(1, 2), own.unsqueeze(1).expand(-1, products.shape[1]), reduction="none")
    return reduce_loss(each.mean(1).view(-1, clouds).mean(0), reduction)


class NPairContrastLoss(nn.Module):
    """Module twin of :func:`n_pair_contrast_loss`; owns a centre, which moves after each call while it trains.

    The centre is the one that a :class:`~limbeck_core.losses.DINOLoss` beside it has, since both see the same scores.

    Args:
        num_prototypes: Width K of both heads.
        student_temperature: See the function.
        teacher_temperature: The same.
        scale: The same.
        center_momentum: Momentum of the centre, in [0, 1].
        teacher_views: See the function.
        reduction: The same.

    Raises:
        ValueError: if an argument is out of range.
    """

    center: Tensor

    def __init__(
        self,
        num_prototypes: int,
        *,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        scale: float = 64.0,
        center_momentum: float = 0.9,
        teacher_views: int = 2,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_positive(student_temperature, "student_temperature")
        check_positive(teacher_temperature, "teacher_temperature")
        check_positive(scale, "scale")
        check_between(center_momentum, "center_momentum", 0.0, 1.0)
        check_reduction(reduction)
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.scale = scale
        self.center_momentum = center_momentum
        self.teacher_views = teacher_views
        self.reduction = reduction
        self.register_buffer("center", torch.zeros(num_prototypes))

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Compute the loss, then move the centre; shapes as in the function."""
        loss = n_pair_contrast_loss(
            student_logits,
            teacher_logits,
            center=self.center,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
            scale=self.scale,
            teacher_views=self.teacher_views,
            reduction=self.reduction,
        )
        if self.training:
            self.center.copy_(moving_center(self.center, teacher_logits, momentum=self.center_momentum))
        return loss


class InfoNCELoss(nn.Module):
    """Module twin of :func:`info_nce_loss`.

    Args:
        temperature: See the function.
        teacher_views: The same.
        reduction: The same.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, *, temperature: float = 0.1, teacher_views: int = 2, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_positive(temperature, "temperature")
        check_reduction(reduction)
        self.temperature = temperature
        self.teacher_views = teacher_views
        self.reduction = reduction

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return info_nce_loss(
            student_embeddings,
            teacher_embeddings,
            temperature=self.temperature,
            teacher_views=self.teacher_views,
            reduction=self.reduction,
        )
