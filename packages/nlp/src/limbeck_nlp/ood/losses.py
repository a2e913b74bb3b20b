"""Each layer of the student learns, token by token, from the few layers of the teacher that are most like it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from limbeck_core.checks import check_finite, check_floating, check_ndim, check_non_negative
from limbeck_core.errors import ShapeError
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.functional.reduction import Reduction, blank_masked, check_reduction, reduce_loss

Distance = Literal["mse", "euclidean"]


def nearest_layers_loss(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    *,
    nearest: int = 2,
    project: Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]] | None = None,
    distance: Distance = "mse",
    rank_weights: Sequence[float] | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Distance of each of the student's layers to its nearest layers of the teacher, chosen for each token (MLKD).

    .. math:: L_i = \sum_{l} \sum_{k=1}^{K} \beta_k \, d^{(k)}_{l,i}, \qquad
        d_{l,i}(j) = \tfrac1D \| h^s_{l,i} - W_j h^t_{j,i} \|_2^2

    where :math:`d^{(k)}_{l,i}` is the k-th smallest distance of token i over the teacher's layers j. The choice is
    hard: layers that are not chosen for a token neither teach it nor train their projection on it.

    Args:
        student_features: Hidden states of the student's layers that learn, each ``(N, L, D)``.
        teacher_features: Hidden states of the teacher's layers that may teach, each ``(N, L, D_t)``. Gradients never
            flow into them.
        nearest: K, how many layers of the teacher teach a token; the paper's figure draws two.
        project: From the teacher's width to the student's: one map for all layers (as the released code does), or one
            for each layer of the teacher (as the paper writes). Gradient flows into its parameters. Default: none, for
            equal widths.
        distance: ``"mse"``, the mean squared difference over the width (released code); or ``"euclidean"``, the norm of
            the difference (paper).
        rank_weights: The K weights :math:`\beta_k`, nearest first. Default: ones, so that layers and ranks are summed.
        mask: Tokens that count, shape ``(N, L)``; boolean or weights. Default: all.
        reduction: ``"mean"`` is over the tokens that count, ``"none"`` gives one value a token, ``(N, L)``.

    Returns:
        Loss, the sum over the student's layers; a differentiable zero if no token counts.

    Raises:
        ShapeError: if there are no layers, their shapes differ, or ``nearest`` is more than the teacher has.
        ValueError: if ``distance``, ``rank_weights`` or ``reduction`` is out of range.
        NonFiniteError: if the loss is not finite (CPU), naming the layer that holds NaN or infinity.

    Reference:
        Wu et al., Multi-Level Knowledge Distillation for Out-of-Distribution Detection in Text, arXiv:2211.11300,
        section 3 ("Similarity-based intermediate layer distillation"), and the code released with it.

    >>> layers = [torch.zeros(1, 1, 4), torch.ones(1, 1, 4), torch.full((1, 1, 4), 3.0)]
    >>> nearest_layers_loss([torch.zeros(1, 1, 4)], layers)  # 0 to the first, 1 to the second
    tensor(1.)
    """
    check_reduction(reduction)
    if distance not in get_args(Distance):
        raise ValueError(f"distance must be 'mse' or 'euclidean', got {distance!r}")
    weights = [1.0] * nearest if rank_weights is None else list(rank_weights)
    for weight in weights:
        check_non_negative(weight, "rank_weights")
    if len(weights) != nearest:
        raise ValueError(f"rank_weights must be {nearest} numbers, one for each of the nearest, got {len(weights)}")
    _check(student_features, teacher_features, nearest)
    maps = _maps(project, len(teacher_features))
    students = [blank_masked(at_least_float32(layer), mask, dim=-1) for layer in student_features]
    teachers = [
        to_student(blank_masked(at_least_float32(layer.detach()), mask, dim=-1))
        for layer, to_student in zip(teacher_features, maps, strict=True)
    ]
    if teachers[0].shape[-1] != students[0].shape[-1]:
        raise ShapeError(
            f"student_features have width {students[0].shape[-1]} and teacher_features, as they are compared, width "
            f"{teachers[0].shape[-1]}: give project a map (NearestLayersLoss(student_width, teacher_width) has one)"
        )
    beta = students[0].new_tensor(weights)
    total = torch.zeros_like(students[0][..., 0])
    named = {f"student_features[{i}]": layer for i, layer in enumerate(student_features)}
    named |= {f"teacher_features[{i}]": layer for i, layer in enumerate(teacher_features)}
    for student in students:  # not stacked: the differences of all pairs would be 7 x 12 hidden states
        apart = torch.stack([_apart(student, teacher, distance) for teacher in teachers], dim=-1)
        check_finite(apart, **named)  # NaN is never the smallest, so the choice would hide it
        total = total + (apart.topk(nearest, dim=-1, largest=False).values * beta).sum(-1)
    return reduce_loss(total, reduction, mask=mask)


def _apart(student: Tensor, teacher: Tensor, distance: Distance) -> Tensor:
    difference = student - teacher
    if distance == "mse":
        return difference.square().mean(-1)
    norm: Tensor = torch.linalg.vector_norm(difference, dim=-1)  # its gradient at zero is zero, not NaN
    return norm


def _check(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], nearest: int) -> None:
    for layers, name in ((student_features, "student_features"), (teacher_features, "teacher_features")):
        if not len(layers):
            raise ShapeError(f"{name} must hold at least one layer, got none: tap the hidden states that are compared")
        for layer in layers:
            check_ndim(layer, name, "(N, L, D) each", at_least=3, at_most=3)
            check_floating(layer, name)
    if not 1 <= nearest <= len(teacher_features):
        raise ShapeError(f"nearest must be 1 to {len(teacher_features)}, the teacher's layers, got {nearest}")
    ours = tuple(student_features[0].shape)
    for layer in (*student_features, *teacher_features):
        if tuple(layer.shape[:2]) != ours[:2]:
            raise ShapeError(
                f"student_features and teacher_features must have the same samples and tokens, got {ours} and "
                f"{tuple(layer.shape)}: feed both models the same tokens"
            )


def _maps(
    project: Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]] | None, layers: int
) -> list[Callable[[Tensor], Tensor]]:
    if project is None:
        return [_unchanged] * layers
    if callable(project):
        return [project] * layers
    if len(project) != layers:
        raise ShapeError(
            f"project must be one map, or one for each of the teacher's {layers} layers, got {len(project)}"
        )
    return list(project)


def _unchanged(features: Tensor) -> Tensor:
    return features


class NearestLayersLoss(nn.Module):
    """Module twin of :func:`nearest_layers_loss`; it owns the projection, which is trained and dropped.

    Args:
        student_width: Width D of the student's hidden states. Default: no projection.
        teacher_width: Width of the teacher's. Default: ``student_width``.
        projections: 1, one matrix for all of the teacher's layers (released code); or their number, one each (paper).
        nearest: See the function.
        distance: See the function.
        rank_weights: See the function.
        reduction: ``"none"``, ``"mean"`` or ``"sum"`` over tokens.

    The matrices have no bias. Only the loss trains them: nothing else keeps them from shrinking what is to be learnt.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        student_width: int | None = None,
        teacher_width: int | None = None,
        *,
        projections: int = 1,
        nearest: int = 2,
        distance: Distance = "mse",
        rank_weights: Sequence[float] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if projections < 1 or nearest < 1:
            raise ValueError(f"projections and nearest must be at least 1, got {projections} and {nearest}")
        if student_width is None and (teacher_width is not None or projections > 1):
            raise ValueError("a projection needs student_width, got None: name both widths, or neither")
        self.nearest = nearest
        self.distance: Distance = distance
        self.rank_weights = None if rank_weights is None else tuple(rank_weights)
        self.reduction = reduction
        self.project = (
            None
            if student_width is None
            else nn.ModuleList(
                nn.Linear(teacher_width or student_width, student_width, bias=False) for _ in range(projections)
            )
        )

    def forward(
        self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], *, mask: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; shapes as in the function."""
        project: Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]] | None = None
        if self.project is not None:
            project = self.project[0] if len(self.project) == 1 else list(self.project)
        return nearest_layers_loss(
            student_features,
            teacher_features,
            nearest=self.nearest,
            project=project,
            distance=self.distance,
            rank_weights=self.rank_weights,
            mask=mask,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        """Show the hyper-parameters in ``repr``."""
        return f"nearest={self.nearest}, distance={self.distance!r}, reduction={self.reduction!r}"
