"""The joint task of class and transformation, and the aggregation of what is said of all views.

Rows are laid out as :func:`~limbeck_vision.methods.sla.views.transformed_views` does, ``n * M + j`` for view j of image
n; columns of joint logits are ``class * M + transformation``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from limbeck_core.checks import check_finite, check_floating, check_ndim, check_target
from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.functional.reduction import Reduction, check_reduction, reduce_loss

OverViews = Literal["mean", "sum"]


def joint_target(target: Tensor, *, views: int) -> Tensor:
    """Return the joint label ``class * M + transformation`` of every view.

    Args:
        target: Class indices, shape ``(N,)``.
        views: Number M of views of an image.

    Returns:
        Shape ``(N * M,)``.

    Raises:
        ValueError: if ``views`` is below 1.

    >>> joint_target(torch.tensor([2, 0]), views=2)
    tensor([4, 5, 0, 1])
    """
    _check_views(views)
    return (target.unsqueeze(1) * views + torch.arange(views, device=target.device)).flatten()


def aggregated_logits(joint_logits: Tensor, *, views: int) -> Tensor:
    r"""Average the class logits of all views, each read under its own transformation.

    .. math:: s_{nk} = \frac1M \sum_j z_{nM + j, \; kM + j}

    The logits are averaged, not the probabilities.

    Args:
        joint_logits: Shape ``(N * M, C * M)``.
        views: Number M of views of an image.

    Returns:
        Shape ``(N, C)``, with a graph.

    Raises:
        ShapeError: if rows or columns are no multiple of ``views``.

    Reference:
        Lee et al., arXiv:1910.05872, section 2.3 (aggregated inference).

    >>> aggregated_logits(torch.tensor([[1.0, 9.0], [9.0, 3.0]]), views=2)
    tensor([[2.]])
    """
    return _by_view(joint_logits, views).diagonal(dim1=1, dim2=3).mean(-1)


def single_view_logits(joint_logits: Tensor, *, views: int) -> Tensor:
    """Return the class logits of the untransformed images, given that they are untransformed (single inference).

    Args:
        joint_logits: Shape ``(N * M, C * M)``; of the rows only the first of each image is read.
        views: Number M of views of an image.

    Returns:
        Shape ``(N, C)``.

    Raises:
        ShapeError: if rows or columns are no multiple of ``views``.

    >>> single_view_logits(torch.tensor([[1.0, 9.0], [9.0, 3.0]]), views=2)
    tensor([[1.]])
    """
    return _by_view(joint_logits, views)[:, 0, :, 0]


def label_augmentation_loss(
    joint_logits: Tensor,
    target: Tensor,
    *,
    views: int,
    over_views: OverViews = "mean",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Cross-entropy of class and transformation together (SLA).

    .. math:: L = \frac1M \sum_j CE(z_{nM + j}, \; y_n M + j)

    With one view it is plain cross-entropy. There is no teacher.

    Args:
        joint_logits: Shape ``(N * M, C * M)``.
        target: Class indices, shape ``(N,)``.
        views: Number M of views of an image.
        over_views: ``"mean"``, or ``"sum"``, which is M times as large (the authors' choice for ImageNet).
        reduction: Over images: ``"none"`` gives shape ``(N,)``.

    Returns:
        Loss in nats.

    Raises:
        ShapeError: if rows are not ``views`` for each label, or columns no multiple of ``views``.
        TargetError: if a label is out of range.
        ValueError: if an option is unknown.
        NonFiniteError: if the loss is not finite (CPU), naming ``joint_logits``.

    Reference:
        Lee et al., Self-supervised Label Augmentation via Input Transformations, arXiv:1910.05872, eq. 3.

    >>> label_augmentation_loss(torch.zeros(4, 4), torch.tensor([1]), views=4)  # log 4
    tensor(1.3863)
    """
    _check_over_views(over_views)
    check_reduction(reduction)
    by_view = _by_view(joint_logits, views)
    check_target(target, by_view[:, 0, :, 0])
    labels = joint_target(target.long(), views=views)
    rows = cross_entropy(at_least_float32(joint_logits), labels, reduction="none").reshape(-1, views)
    loss = reduce_loss(rows.mean(1) if over_views == "mean" else rows.sum(1), reduction)
    check_finite(loss, joint_logits=joint_logits)
    return loss


class LabelAugmentationLoss(nn.Module):
    """Module twin of :func:`label_augmentation_loss`; the task loss of a :class:`LabelAugmented` student.

    Args:
        views: Number of views of an image.
        over_views: ``"mean"`` or ``"sum"``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over images.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, views: int, *, over_views: OverViews = "mean", reduction: Reduction = "mean") -> None:
        super().__init__()
        _check_views(views)
        _check_over_views(over_views)
        check_reduction(reduction)
        self.views = views
        self.over_views: OverViews = over_views
        self.reduction = reduction

    def forward(self, joint_logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss; shapes as in the function."""
        return label_augmentation_loss(
            joint_logits, target, views=self.views, over_views=self.over_views, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"views={self.views}, over_views={self.over_views!r}, reduction={self.reduction!r}"


class AggregatedViews(nn.Module):
    """Adapter from joint logits to the aggregated prediction, which is the teacher of SLA + SD.

    With :class:`~limbeck_core.losses.KLDivergenceLoss`, which detaches its teacher, it makes the self-distillation
    term: the head that sees the image once learns what all views say together, and the joint head is not pulled.

    Args:
        views: Number of views of an image.

    Raises:
        ValueError: if ``views`` is below 1.

    Reference:
        Lee et al., arXiv:1910.05872, section 2.4 (self-distillation from aggregation); temperature 1, weights 1.
    """

    def __init__(self, views: int) -> None:
        super().__init__()
        _check_views(views)
        self.views = views

    def forward(self, joint_logits: Tensor) -> Tensor:
        """Aggregate; shapes as in :func:`aggregated_logits`."""
        return aggregated_logits(joint_logits, views=self.views)

    def extra_repr(self) -> str:
        """Show the number of views in ``repr``."""
        return f"views={self.views}"


def _by_view(joint_logits: Tensor, views: int) -> Tensor:
    """Joint logits with an axis each: image, view, class, transformation."""
    _check_views(views)
    check_ndim(joint_logits, "joint_logits", "(N * M, C * M)", at_least=2, at_most=2)
    check_floating(joint_logits, "joint_logits")
    rows, columns = joint_logits.shape
    if rows % views or columns % views or not columns:
        raise ShapeError(
            f"joint_logits must have shape (N * {views}, C * {views}), got {(rows, columns)}: every image needs all "
            f"{views} views in the batch, and every class a column for each"
        )
    return joint_logits.reshape(rows // views, views, columns // views, views)


def _check_views(views: int) -> None:
    if views < 1:
        raise ValueError(f"views must be 1 or more, got {views}")


def _check_over_views(over_views: str) -> None:
    if over_views not in ("mean", "sum"):
        raise ValueError(f"over_views must be 'mean' or 'sum', got {over_views!r}")
